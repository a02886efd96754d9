"""What a decoder needs from a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from node.model.config import ModelConfig, UnitKind
from node.model.unit import Unit
from protocol.linear.field import Floats


class ModelParts(Protocol):
    """What a decoder needs from a model: the parts that are computed here, and its units, with or without weights."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def final_norm(self) -> Floats: ...

    def unit(self, layer: int | None, kind: UnitKind) -> Unit: ...

    def norm(self, layer: int, name: str) -> Floats: ...

    def embedding_rows(self, token_ids: Sequence[int]) -> Floats: ...
