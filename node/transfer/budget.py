"""`--memory`: one bound for the weights that a node keeps for its own prompts, for others, and for a while."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from node.model.config import UnitKind
from node.model.unit import UnitRef
from node.store.check_file import check_bytes
from node.store.manifest import Manifest


class MemoryBudget(Struct, frozen=True):
    """What a node may keep of one model.

    A model that is here as a whole does not count: its files are mapped, and the system may drop their pages.
    """

    total_bytes: int
    lent: frozenset[UnitKind] = frozenset()
    """Units of these kinds leave checks alone, because this node is a thin client of the model; none: it is not."""

    def for_others(self, manifest: Manifest) -> int:
        """Bytes for layers that are served: without what a thin client keeps, and without one unit that it may have
        to compute itself."""
        if not self.lent:
            return self.total_bytes
        largest = max((ref.num_bytes for ref in manifest.units if ref.kind in self.lent), default=0)
        return max(0, self.total_bytes - self._own_bytes(manifest) - largest)

    def to_borrow(self, manifest: Manifest, served: Collection[UnitRef]) -> int:
        """Bytes for units that are computed here because nobody else can.

        Args:
            served: units of the model that this node serves.
        """
        for_others = sum(ref.num_bytes for ref in served if ref.kind in self.lent)
        return max(0, self.total_bytes - self._own_bytes(manifest) - for_others)

    def _own_bytes(self, manifest: Manifest) -> int:
        return sum(check_bytes(ref) if ref.kind in self.lent else ref.num_bytes for ref in manifest.units)
