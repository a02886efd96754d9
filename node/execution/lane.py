"""Lanes decide which peer may see what.

A lane is a fixed pair of guards: A gets the seeds of pads, B gets rows minus pads. A row stays in its lane, so only
the two guards of one lane together could reconstruct it. A peer never has both roles in a session.
In `strict` mode this device makes the pads, and a lane is only B.
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
    """One lane: the peer that gets the shares, and the source of the pads."""

    index: int
    share_peer: SessionPeer
    pads: PadSource
    units: frozenset[bytes] | None = None
    """Hashes of the units that its peers announced; None for all."""
    missing: set[bytes] = field(default_factory=set)
    """Units that one of the peers turned out not to hold."""
    stands_in: bool = False
    """Whether it is used only for units that no other lane can take."""

    @property
    def usable(self) -> bool:
        """Whether it may get chunks of the current pass."""
        return self.share_peer.usable and self.pads.usable

    @property
    def takes_rows(self) -> bool:
        """Whether rows of a new pass may enter it."""
        return self.share_peer.takes_rows and self.pads.takes_rows

    def covers(self, ref: UnitRef) -> bool:
        """Whether its peers hold this unit, as far as we know."""
        return (self.units is None or ref.sha256 in self.units) and ref.sha256 not in self.missing

    @property
    def guard(self) -> SessionPeer | None:
        """The peer that makes its pads; None if no peer does."""
        return self.pads.maker

    @property
    def binds_rows(self) -> bool:
        """Whether its rows must not go to any other lane."""
        return self.pads.binds_rows

    @property
    def plain(self) -> bool:
        """Whether it sends plain rows, to a device that may read them."""
        return isinstance(self.pads, NoPads)


def pair_guards(places: Sequence[PeerT | None], max_lanes: int) -> list[tuple[PeerT, PeerT]]:
    """Fixed lanes (A, B): the peers at places 2i and 2i + 1, in the order in which the user named them.

    Args:
        places: the place of a missing named peer is empty, and its partner is not used. Nobody moves up, because
            otherwise two peers that the user kept apart could meet in one lane.
    """
    pairs = zip(places[::2], places[1::2], strict=False)
    return [(a, b) for a, b in pairs if a is not None and b is not None][:max_lanes]
