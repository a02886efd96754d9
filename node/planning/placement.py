"""The placement of a model's units: which kinds are computed here, and which are lent to peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from node.model.config import LAYER_KINDS, UnitKind
from node.model.unit import UnitRef

Place = Literal["here", "lent"]

UNIT_KINDS: tuple[UnitKind, ...] = get_args(UnitKind)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each kind of unit is computed. It is decided before a pass begins, and holds for all layers."""

    lent: frozenset[UnitKind] = frozenset()

    def is_lent(self, ref: UnitRef) -> bool:
        return ref.kind in self.lent

    def of(self, kind: UnitKind) -> Place:
        return "lent" if kind in self.lent else "here"

    def as_json(self) -> dict[str, Place]:
        """By kind of unit, as receipts and interfaces say it."""
        return {kind: self.of(kind) for kind in UNIT_KINDS}


ALL_HERE = Placement()
LAYERS_LENT = Placement(frozenset(LAYER_KINDS))
