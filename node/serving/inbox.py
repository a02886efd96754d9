"""Messages of peers that ask faster than they are served: kept as they came, decoded when the peer's turn is near.

Decoding costs more than reading, and messages of all peers come in one stream. So a peer whose requests wait already
does not make the thread decode more of them: somebody else's message behind those is read at once.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from node.serving.work_queue import (
    MAX_BYTES,
    MAX_BYTES_A_PEER,
    MAX_BYTES_A_ROUTE,
    MAX_JOBS_A_PEER,
    MAX_JOBS_A_ROUTE,
    MAX_PEERS,
    Path,
    Route,
)
from protocol.identity import PeerId

MAX_CANCELLED = MAX_JOBS_A_PEER
"""Ids of a peer that are remembered as cancelled while its messages wait: one for each that may."""


@dataclass(frozen=True, slots=True)
class Unopened:
    """A message as it came, and from where."""

    peer_id: PeerId
    socket: Any
    route: Route
    frames: list[zmq.Frame]

    @property
    def path(self) -> Path:
        return self.peer_id, self.route

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.frames))


class Inbox:
    """Unopened messages: first in first out for each peer, peers in turn; bounded as requests are."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[PeerId, deque[Unopened]] = OrderedDict()
        """The peer whose message was opened longest ago first; none is empty."""
        self._count_of: Counter[Path] = Counter()
        self._bytes_of: Counter[Path | PeerId] = Counter()
        self._num_bytes = 0
        self._cancelled: dict[PeerId, set[int]] = {}
        """Ids of requests that wait, or do not: only who opens them can tell."""

    def __len__(self) -> int:
        return sum(self._count_of.values())

    def __contains__(self, peer_id: PeerId) -> bool:
        return peer_id in self._waiting

    def push(self, message: Unopened) -> bool:
        """Whether there was room."""
        peer_id, path, size = message.peer_id, message.path, message.num_bytes
        waiting = self._waiting.get(peer_id, ())
        if not waiting and len(self._waiting) >= MAX_PEERS:
            return False
        if len(waiting) >= MAX_JOBS_A_PEER or self._count_of[path] >= MAX_JOBS_A_ROUTE:
            return False
        if self._bytes_of[path] + size > MAX_BYTES_A_ROUTE or self._bytes_of[peer_id] + size > MAX_BYTES_A_PEER:
            return False
        if self._num_bytes + size > MAX_BYTES:
            return False
        self._waiting.setdefault(peer_id, deque()).append(message)
        self._count(message, 1)
        return True

    def cancel(self, peer_id: PeerId, request_id: int) -> None:
        """A request that may be among what waits is not to be computed."""
        if peer_id in self._waiting:
            ids = self._cancelled.setdefault(peer_id, set())
            if len(ids) < MAX_CANCELLED:
                ids.add(request_id)

    def was_cancelled(self, peer_id: PeerId, request_id: int) -> bool:
        """Whether a request that was just opened was cancelled while it waited; asked once."""
        ids = self._cancelled.get(peer_id)
        if ids is None or request_id not in ids:
            return False
        ids.remove(request_id)
        return True

    def is_ready(self, may_open: Callable[[PeerId], bool]) -> bool:
        """Whether `take` gives something."""
        return any(map(may_open, self._waiting))

    def take(self, may_open: Callable[[PeerId], bool]) -> Unopened | None:
        """The next message of whoever has waited longest, of those that it is time for."""
        peer_id = next(filter(may_open, self._waiting), None)
        if peer_id is None:
            return None
        waiting = self._waiting.pop(peer_id)
        message = waiting.popleft()
        if waiting:
            self._waiting[peer_id] = waiting
        self._count(message, -1)
        return message

    def settle(self, peer_id: PeerId) -> None:
        """Nothing of a peer waits any more: nothing that was cancelled can come."""
        if peer_id not in self._waiting:
            self._cancelled.pop(peer_id, None)

    def forget(self, peer_id: PeerId) -> None:
        """Drop all messages of a peer that is not served any more."""
        for message in self._waiting.pop(peer_id, ()):
            self._count(message, -1)
        self._cancelled.pop(peer_id, None)

    def _count(self, message: Unopened, sign: int) -> None:
        peer_id, path, size = message.peer_id, message.path, sign * message.num_bytes
        self._num_bytes += size
        self._bytes_of[peer_id] += size
        self._bytes_of[path] += size
        self._count_of[path] += sign
        if not self._count_of[path]:
            del self._count_of[path], self._bytes_of[path]
        if peer_id not in self._waiting:
            del self._bytes_of[peer_id]
