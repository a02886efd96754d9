"""Messages that ask for work, kept as they came until their peer's turn.

Decoding costs more than reading, and messages of all peers come in one stream. So everything that has come is read
first; then one message is opened, from the peer whose turn it is and not from the one that sent the most.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import zmq
from msgspec import Struct

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
"""Most ids of a peer that are remembered as cancelled while its messages wait: one for each message that may wait."""


class Unopened(Struct, frozen=True):
    """A message as it came, and from where."""

    peer_id: PeerId
    socket: Any
    route: Route
    frames: list[zmq.Frame]
    num_bytes: int

    @property
    def path(self) -> Path:
        return self.peer_id, self.route


class Inbox:
    """Unopened messages: first in first out for each connection, connections in turn; bounded as requests are."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Path, deque[Unopened]] = OrderedDict()
        """By connection, the one whose last message was opened longest ago first; none is empty."""
        self._count_of: dict[PeerId, int] = {}
        self._bytes_of: dict[Path | PeerId, int] = {}
        self._num_bytes = 0
        self._cancelled: dict[PeerId, set[int]] = {}
        """Ids of requests that may or may not wait: only opening the messages can tell."""

    def __len__(self) -> int:
        return sum(self._count_of.values())

    def __contains__(self, peer_id: PeerId) -> bool:
        return peer_id in self._count_of

    def count_of(self, peer_id: PeerId) -> int:
        """Messages of a peer that wait."""
        return self._count_of.get(peer_id, 0)

    @property
    def only_path(self) -> Path | None:
        """The connection of the only message that waits; None where none or several wait."""
        if len(self._waiting) != 1:
            return None
        path, messages = next(iter(self._waiting.items()))
        return path if len(messages) == 1 else None

    @property
    def paths(self) -> Iterator[Path]:
        """Connections with messages that wait, the one opened longest ago first."""
        return iter(self._waiting)

    def push(self, message: Unopened) -> bool:
        """Keep a message; returns whether there was room."""
        peer_id, path, size = message.peer_id, message.path, message.num_bytes
        if peer_id not in self._count_of and len(self._count_of) >= MAX_PEERS:
            return False
        if self.count_of(peer_id) >= MAX_JOBS_A_PEER or len(self._waiting.get(path, ())) >= MAX_JOBS_A_ROUTE:
            return False
        if self._bytes_of.get(path, 0) + size > MAX_BYTES_A_ROUTE:
            return False
        if self._bytes_of.get(peer_id, 0) + size > MAX_BYTES_A_PEER:
            return False
        if self._num_bytes + size > MAX_BYTES:
            return False
        self._waiting.setdefault(path, deque()).append(message)
        self._count(message, 1)
        return True

    def cancel(self, peer_id: PeerId, request_id: int) -> None:
        """A request is cancelled that may be in a message that waits."""
        if peer_id in self._count_of:
            ids = self._cancelled.setdefault(peer_id, set())
            if len(ids) < MAX_CANCELLED:
                ids.add(request_id)

    def has_cancelled(self, peer_id: PeerId) -> bool:
        """Whether any request of a peer was cancelled that may not have been opened yet."""
        return peer_id in self._cancelled

    def was_cancelled(self, peer_id: PeerId, request_id: int) -> bool:
        """Whether a request that was just opened was cancelled while it waited; asked once."""
        ids = self._cancelled.get(peer_id)
        if ids is None or request_id not in ids:
            return False
        ids.remove(request_id)
        return True

    def take(self, path: Path) -> Unopened:
        """The next message of a connection; the connection goes to the end of the line."""
        waiting = self._waiting.pop(path)
        message = waiting.popleft()
        if waiting:
            self._waiting[path] = waiting
        self._count(message, -1)
        return message

    def settle(self, peer_id: PeerId) -> None:
        """No message of a peer waits any more, so no cancelled request can come."""
        if peer_id not in self._count_of:
            self._cancelled.pop(peer_id, None)

    def forget(self, peer_id: PeerId) -> None:
        """Drop all messages of a peer that is not served any more."""
        for path in [path for path in self._waiting if path[0] == peer_id]:
            for message in self._waiting.pop(path):
                self._count(message, -1)
        self._cancelled.pop(peer_id, None)

    def _count(self, message: Unopened, sign: int) -> None:
        peer_id, path, size = message.peer_id, message.path, sign * message.num_bytes
        self._num_bytes += size
        for key in (peer_id, path):
            self._bytes_of[key] = self._bytes_of.get(key, 0) + size
        count = self._count_of[peer_id] = self.count_of(peer_id) + sign
        if path not in self._waiting:
            del self._bytes_of[path]
        if not count:
            del self._count_of[peer_id], self._bytes_of[peer_id]
