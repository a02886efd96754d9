"""Whose turn it is, by time used: start-time fair queueing (Goyal, Vin, Cheng 1996), as pure arithmetic.

Every peer that waits gets the same share of the time, whatever its requests cost: a long request counts as many short
ones. Whoever comes after a pause goes before those that were served meanwhile, and has saved up a few milliseconds at
most. A clock that only moves with what is served replaces the real one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from protocol.identity import PeerId

MAX_DEBT_S = 0.25
"""Time used beyond that of others is remembered up to this limit: one long message is paid back, a bad hour is
not."""
MAX_SAVED_S = 0.005
"""Most time that a peer may save up by using less than its share. So a session that asks for one row after the other
is always served at once, even where many long requests of many peers wait."""
MAX_KNOWN = 1024
"""Most peers whose time is remembered; beyond them, those that used time longest ago are forgotten."""


class Turns:
    """Time used by each peer, in seconds on a clock that all share."""

    def __init__(self) -> None:
        self._now_s = 0.0
        """The highest place at which anybody was served."""
        self._used_s: OrderedDict[PeerId, float] = OrderedDict()
        """The place of each peer after the time that it used, the longest unused first."""

    def start_s(self, peer_id: PeerId) -> float:
        """Where a peer stands; the lowest is served next."""
        return max(self._now_s - MAX_SAVED_S, self._used_s.get(peer_id, self._now_s))

    def next(self, waiting: Iterable[PeerId]) -> PeerId | None:
        """Who is served next: of peers at the same place the first. The shared clock follows."""
        peer_id = min(waiting, key=self.start_s, default=None)
        if peer_id is not None:
            self._now_s = max(self._now_s, self.start_s(peer_id))
        return peer_id

    def charge(self, peer_id: PeerId, seconds: float) -> None:
        """A peer has used this much."""
        self._used_s[peer_id] = min(self.start_s(peer_id) + seconds, self._now_s + MAX_DEBT_S)
        self._used_s.move_to_end(peer_id)
        if len(self._used_s) > MAX_KNOWN:
            self._used_s.popitem(last=False)
