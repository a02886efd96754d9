"""The placement of a model's units: which kinds are computed here, and which are lent to peers."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Literal, get_args

from msgspec import Struct

from node.model.config import LAYER_KINDS, UnitKind
from node.model.unit import UnitRef

Place = Literal["here", "lent"]

UNIT_KINDS: tuple[UnitKind, ...] = get_args(UnitKind)


class Placement(Struct, frozen=True):
    """Where each kind of unit is computed. It is decided before a pass begins, and holds for all layers."""

    lent: frozenset[UnitKind] = frozenset()

    def is_lent(self, ref: UnitRef) -> bool:
        return ref.kind in self.lent

    def of(self, kind: UnitKind) -> Place:
        return "lent" if kind in self.lent else "here"

    def bytes_here(self, units: Iterable[UnitRef]) -> int:
        """Weights that are computed with here."""
        return sum(ref.num_bytes for ref in units if not self.is_lent(ref))

    @property
    def name(self) -> str:
        """How `--lend` calls it; the kinds that are lent where it has no name."""
        named = next((lend.value for lend, placement in PLACEMENTS.items() if placement == self), None)
        return named or "+".join(kind for kind in UNIT_KINDS if kind in self.lent) or "nothing"

    def as_json(self) -> dict[str, Place]:
        """By kind of unit, as receipts and interfaces say it."""
        return {kind: self.of(kind) for kind in UNIT_KINDS}


class Lend(Enum):
    """What a user wants to be lent."""

    AUTO = "auto"
    """What the planner thinks is the fastest of what fits."""
    FFN = "ffn"
    """The feed-forward layers alone: two exchanges a layer."""
    LAYERS = "layers"
    """Every linear layer of the decoder's layers: four exchanges a layer."""
    ALL = "all"
    """These, and the head."""


ALL_HERE = Placement()
FFN_LENT = Placement(frozenset({"gate_up", "down"}))
LAYERS_LENT = Placement(frozenset(LAYER_KINDS))
ALL_LENT = Placement(frozenset(UNIT_KINDS))
PLACEMENTS = {Lend.FFN: FFN_LENT, Lend.LAYERS: LAYERS_LENT, Lend.ALL: ALL_LENT}


def allowed_placements(lend: Lend) -> tuple[Placement, ...]:
    """What the planner may choose from."""
    return tuple(PLACEMENTS.values()) if lend is Lend.AUTO else (PLACEMENTS[lend],)


def kinds_not_kept(thin: bool, lend: Lend) -> frozenset[UnitKind]:
    """Kinds of units of which a thin model keeps no weights; with `auto` all: the head costs one exchange a token."""
    return PLACEMENTS.get(lend, ALL_LENT).lent if thin else frozenset()
