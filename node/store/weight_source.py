"""What an import needs of a checkpoint, in whatever format its weights come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from node.model.config import ModelConfig
from protocol.linear.field import Floats


class WeightSource(Protocol):
    """Weights under the names of `hf.layout`, checked whole before a weight is read."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def folder(self) -> Path:
        """Where the files of its tokenizer lie."""

    @property
    def embedding(self) -> str:
        """The tensor that holds the embedding."""

    @property
    def head(self) -> str:
        """The tensor that holds the head."""

    @property
    def embedding_dtype(self) -> str:
        """How the embedding is kept: F32, F16 or BF16."""

    def embedding_blocks(self, num_rows: int) -> Iterator[bytes]:
        """The embedding's bytes in that dtype, so many rows at a time."""

    def tensor(self, name: str) -> Floats:
        """The whole tensor; `name` is one that the architecture has."""

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor, so that no more of it is in memory."""
