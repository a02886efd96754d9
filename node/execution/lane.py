"""A lane of a running session: a fixed way for rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.execution.pads import PadSource
from node.execution.peer import SessionPeer
from node.execution.plain import NoPads
from node.model.unit import UnitRef


@dataclass(slots=True)
class Lane:
    """Who gets the shares, and where the pads come from."""

    index: int
    share_peer: SessionPeer
    pads: PadSource
    units: frozenset[bytes] | None = None
    """Hashes of the units that its peers said they hold; None for all."""
    missing: set[bytes] = field(default_factory=set)
    """Units that one of them does not hold after all."""

    @property
    def usable(self) -> bool:
        """Whether it may be sent chunks of the pass that is under way."""
        return self.share_peer.usable and self.pads.usable

    @property
    def takes_rows(self) -> bool:
        """Whether rows of a new pass may enter it."""
        return self.share_peer.takes_rows and self.pads.takes_rows

    def covers(self, ref: UnitRef) -> bool:
        """Whether its peers hold this unit, as far as is known."""
        return (self.units is None or ref.sha256 in self.units) and ref.sha256 not in self.missing

    @property
    def guard(self) -> SessionPeer | None:
        """The peer that makes its pads; None where no peer does."""
        return self.pads.maker

    @property
    def binds_rows(self) -> bool:
        """Whether its rows must not go anywhere else."""
        return self.pads.binds_rows

    @property
    def plain(self) -> bool:
        """Whether its rows go as they are, to a device that may read them."""
        return isinstance(self.pads, NoPads)
