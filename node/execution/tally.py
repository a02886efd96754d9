"""What each peer has done for the sessions of this node: roles, chunks, wrong results, bytes."""

from __future__ import annotations

import threading
from collections import defaultdict

from msgspec import Struct, field

from node.execution.peer import SessionPeer
from protocol.identity import PeerId
from protocol.linear.messages import Role


class PeerTally(Struct):
    """One peer's part in all sessions of this node since it started."""

    roles: set[Role] = field(default_factory=set)
    """Its roles in open sessions."""
    chunks: int = 0
    rejected: int = 0
    bytes_up: int = 0
    bytes_down: int = 0

    def add(self, joined: SessionPeer) -> None:
        self.chunks += joined.chunks
        self.rejected += joined.rejected
        self.bytes_up += joined.channel.bytes_up
        self.bytes_down += joined.channel.bytes_down


class Tally:
    """Counts for all peers. Thread-safe. Figures of an open session may be slightly out of date."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, SessionPeer] = {}
        self._closed: defaultdict[PeerId, PeerTally] = defaultdict(PeerTally)

    def joined(self, peer: SessionPeer) -> None:
        """A peer takes part in a session."""
        with self._lock:
            self._open[id(peer)] = peer

    def left(self, peer: SessionPeer) -> None:
        """Its session is closed."""
        with self._lock:
            if self._open.pop(id(peer), None) is not None:
                self._closed[peer.peer_id].add(peer)

    def of_all(self) -> dict[PeerId, PeerTally]:
        """The figures of all peers now."""
        with self._lock:
            sums = {
                peer_id: PeerTally(set(), done.chunks, done.rejected, done.bytes_up, done.bytes_down)
                for peer_id, done in self._closed.items()
            }
            for peer in self._open.values():
                tally = sums.setdefault(peer.peer_id, PeerTally())
                tally.roles.add(peer.role)
                tally.add(peer)
            return sums
