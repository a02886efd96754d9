"""A unit: one fused linear layer as integers, the piece that peers hold and compute."""

from __future__ import annotations

from msgspec import Struct

from node.errors import ModelError
from node.model.config import UnitKind
from protocol.linear.field import Floats, Weights

BYTES_PER_ROW = 12
"""Size of a row's scale and squared norm in the unit's file."""


class UnitRef(Struct, frozen=True):
    """Names a fused linear layer of a model, with its shape and the hash of its bytes."""

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
        """A name for people: `3.qkv` or `head`."""
        return self.kind if self.layer is None else f"{self.layer}.{self.kind}"


class Unit(Struct, frozen=True, eq=False):
    """A unit as the client uses it; its weights are pages of its file, or only peers hold them."""

    ref: UnitRef
    held: Weights | None
    """[N, K], read-only, memory-mapped; None if this device does not hold them."""
    scales: Floats
    """[N]"""
    max_row_norm: float
    """Largest Euclidean norm of a row of integers, which bounds every sum (Cauchy-Schwarz)."""
    bias: Floats | None
    """[N], added by the client after the integer sums; None if there is none, or if only peers use the unit."""

    @property
    def weights(self) -> Weights:
        """[N, K]. Raises ModelError if they are not held here."""
        if self.held is None:
            raise ModelError(f"the weights of unit {self.ref.name} are not here: a peer has to compute it")
        return self.held
