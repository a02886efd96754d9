"""Decides which peers to dial next, so that every two members have a link. The control plane dials them.

Of two members that can both be dialled, the one with the smaller PeerID dials. The other waits a little and then
dials too, since a firewall may allow only one direction. Peers that count as dead are tried again from time to time:
otherwise the two sides would never join again after a partition.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

from msgspec import Struct

from protocol.identity import PeerId

GRACE_S = 3.0
"""How long the larger PeerID waits for the smaller one to dial."""
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
"""First and longest pause between two tries; each pause is twice the previous one, with jitter."""
DEAD_PAUSE_S = 8.0
"""Shortest pause between two tries to reach a peer that counts as dead."""
MAX_DIALS = 24
"""Most peers that are dialled at the same time."""
MAX_LINKED = 512
"""Most linked peers; with so many nobody else is dialled. Each link takes a socket, and somebody with many keys could
have many links."""


class Candidate(Struct, frozen=True):
    """A peer of the table that can be dialled."""

    peer_id: PeerId
    alive: bool


class _Attempt(Struct):
    next_at: float
    pause_s: float = FIRST_PAUSE_S
    running: bool = False


class Mesh:
    """Remembers tries and pauses; `due` says which peers to dial now."""

    def __init__(self, me: PeerId, rng: random.Random) -> None:
        self._me = me
        self._rng = rng
        self._attempts: dict[PeerId, _Attempt] = {}

    def due(
        self, now: float, candidates: Iterable[Candidate], linked: Collection[PeerId], eager: bool = False
    ) -> list[PeerId]:
        """Peers to dial now; each counts as being dialled until `ended`.

        Args:
            eager: nobody knows yet that this node is back, or where, so it does not wait for others to dial.
        """
        # A successful try counts as running while its link exists; such tries do not count here.
        running = sum(attempt.running for peer_id, attempt in self._attempts.items() if peer_id not in linked)
        chosen: list[PeerId] = []
        known: set[PeerId] = set()
        for candidate in candidates:
            known.add(candidate.peer_id)
            attempt = self._attempts.get(candidate.peer_id)
            if candidate.peer_id in linked:
                if attempt is not None and not attempt.running:
                    del self._attempts[candidate.peer_id]
                continue
            if attempt is None:
                attempt = self._attempts[candidate.peer_id] = self._first(candidate, now, eager)
            room = running + len(chosen) < min(MAX_DIALS, MAX_LINKED - len(linked))
            if not attempt.running and attempt.next_at <= now and room:
                attempt.running = True
                chosen.append(candidate.peer_id)
        for peer_id in [peer_id for peer_id, attempt in self._attempts.items() if peer_id not in known]:
            if not self._attempts[peer_id].running:
                del self._attempts[peer_id]
        return chosen

    def ended(self, now: float, peer_id: PeerId, was_up: bool, alive: bool) -> None:
        """A try has ended: it failed, or it became a link (`was_up`) that has ended now."""
        attempt = self._attempts.get(peer_id)
        if attempt is None:
            return
        attempt.running = False
        pause_s = FIRST_PAUSE_S if was_up else attempt.pause_s
        attempt.pause_s = min(2 * pause_s, MAX_PAUSE_S)
        least_s = 0.0 if alive else DEAD_PAUSE_S
        attempt.next_at = now + max(pause_s, least_s) * (0.5 + self._rng.random())

    def hurry(self, now: float, peer_id: PeerId) -> None:
        """There is news of a peer, such as a new address: try it soon."""
        attempt = self._attempts.get(peer_id)
        if attempt is not None:
            attempt.pause_s = FIRST_PAUSE_S
            attempt.next_at = min(attempt.next_at, now + FIRST_PAUSE_S * self._rng.random())

    def _first(self, candidate: Candidate, now: float, eager: bool) -> _Attempt:
        if eager:
            return _Attempt(now)
        if not candidate.alive:
            return _Attempt(now + DEAD_PAUSE_S * self._rng.random())
        grace_s = GRACE_S if candidate.peer_id < self._me else 0.0
        return _Attempt(now + grace_s)
