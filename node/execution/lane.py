"""Lanes: who may ever see what.

A lane is a fixed pair of guards: A gets the seeds of pads, B gets rows minus pads. A row stays in its lane, so only
the two guards of one lane could ever put it together; a peer never holds both roles in a session.
In `strict` mode pads are made at home and a lane is B alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct, field

from node.execution.pads.none import NoPads
from node.execution.pads.source import PadSource
from node.execution.peer import SessionPeer
from node.model.unit import UnitRef

DEFAULT_MAX_LANES = 4
PeerT = TypeVar("PeerT")


class Lane(Struct):
    """Who gets the shares, and where the pads come from."""

    index: int
    share_peer: SessionPeer
    pads: PadSource
    units: frozenset[bytes] | None = None
    """Hashes of the units that its peers said they hold; None for all."""
    missing: set[bytes] = field(default_factory=set)
    """Units that one of them does not hold after all."""
    stands_in: bool = False
    """Whether it is used only for units that no other lane can take."""

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


def pair_guards(places: Sequence[PeerT | None], max_lanes: int) -> list[tuple[PeerT, PeerT]]:
    """Fixed lanes (A, B): the peers at places 2i and 2i + 1, in the order in which the user named them.

    Args:
        places: a named peer that is not there leaves its place empty. Its partner then stays out: nobody moves up, or
            two peers that the user kept apart could meet in one lane.
    """
    pairs = zip(places[::2], places[1::2], strict=False)
    return [(a, b) for a, b in pairs if a is not None and b is not None][:max_lanes]
