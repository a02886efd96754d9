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
        """Size of the weights that are used here."""
        return sum(ref.num_bytes for ref in units if not self.is_lent(ref))

    @property
    def name(self) -> str:
        """Its name in `--lend`; if it has none, the lent kinds."""
        named = next((lend.value for lend, placement in PLACEMENTS.items() if placement == self), None)
        return named or "+".join(kind for kind in UNIT_KINDS if kind in self.lent) or "nothing"

    def as_json(self) -> dict[str, Place]:
        """The place by kind of unit, as in receipts and interfaces."""
        return {kind: self.of(kind) for kind in UNIT_KINDS}


class Lend(Enum):
    """What a user wants to lend."""

    AUTO = "auto"
    """The placement that the planner expects to be the fastest possible one."""
    FFN = "ffn"
    """Only the feed-forward layers: two exchanges per layer."""
    LAYERS = "layers"
    """Every linear layer of the decoder's layers: four exchanges per layer."""
    ALL = "all"
    """These, and the head."""


ALL_HERE = Placement()
FFN_LENT = Placement(frozenset({"gate_up", "down"}))
LAYERS_LENT = Placement(frozenset(LAYER_KINDS))
ALL_LENT = Placement(frozenset(UNIT_KINDS))
PLACEMENTS = {Lend.FFN: FFN_LENT, Lend.LAYERS: LAYERS_LENT, Lend.ALL: ALL_LENT}


def allowed_placements(lend: Lend) -> tuple[Placement, ...]:
    """The placements from which the planner may choose."""
    return tuple(PLACEMENTS.values()) if lend is Lend.AUTO else (PLACEMENTS[lend],)


def kinds_not_kept(thin: bool, lend: Lend) -> frozenset[UnitKind]:
    """Kinds of units of which a thin model keeps no weights; with `auto` all: the head costs one exchange a token."""
    return PLACEMENTS.get(lend, ALL_LENT).lent if thin else frozenset()
