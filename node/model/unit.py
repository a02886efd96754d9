"""A unit: one fused linear layer as integers, the piece that peers hold and compute."""

from __future__ import annotations

from dataclasses import dataclass

from node.model.config import UnitKind
from protocol.linear.field import Floats, Weights

BYTES_PER_ROW = 12
"""A row's scale and squared norm in the unit's file."""


@dataclass(frozen=True, slots=True)
class UnitRef:
    """Which fused linear layer of a model, in which shape and with which bytes."""

    layer: int | None
    """None for the head."""
    kind: UnitKind
    num_outputs: int
    num_inputs: int
    sha256: bytes

    @property
    def num_bytes(self) -> int:
        """Size of its file."""
        return self.num_outputs * (self.num_inputs + BYTES_PER_ROW)

    @property
    def name(self) -> str:
        """For people: `3.qkv` or `head`."""
        return self.kind if self.layer is None else f"{self.layer}.{self.kind}"


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A unit in memory; its weights are pages of its file."""

    ref: UnitRef
    weights: Weights
    """[N, K], read-only, memory-mapped."""
    scales: Floats
    """[N]"""
    max_row_norm: float
    """Largest Euclidean norm of a row of integers: what bounds every sum (Cauchy-Schwarz)."""
    bias: Floats | None
    """[N], added by the client after the integers; None where there is none, or where a peer alone uses the unit."""
