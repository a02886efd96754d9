"""What an import needs from a checkpoint, in any format of weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from node.model.config import ModelConfig
from protocol.linear.field import Floats


class WeightSource(Protocol):
    """Weights under the names of `hf.layout`, all checked before a weight is read."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def folder(self) -> Path:
        """The folder with the files of its tokenizer."""

    @property
    def embedding(self) -> str:
        """The tensor that holds the embedding."""

    @property
    def head(self) -> str:
        """The tensor that holds the head."""

    @property
    def embedding_dtype(self) -> str:
        """The dtype in which the embedding is kept: F32, F16 or BF16."""

    def embedding_blocks(self, num_rows: int) -> Iterator[bytes]:
        """The embedding's bytes in that dtype, `num_rows` rows at a time."""

    def tensor(self, name: str) -> Floats:
        """The whole tensor; the architecture must have a tensor of this name."""

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor; no more of it is in memory."""
