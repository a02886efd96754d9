"""What a data plane sends: at once, or as soon as a peer has read what it got before.

Answers that a peer has not read yet lie in libzmq, which counts messages and not bytes. So each large one is tracked
until libzmq has let go of it: no more is computed for a connection, or a peer, that has too many bytes unread.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import zmq
from msgspec import Struct, field

from node.serving.work_queue import Path, Route
from node.transport.sockets import send_parts
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_BYTES

log = logging.getLogger(__name__)

MAX_UNSENT = 256
"""Most answers that wait until a connection reads. Nothing is computed for it meanwhile, so few of them are
results."""
MAX_UNREAD_BYTES_A_ROUTE = MAX_DATA_BYTES
"""With this much unread a connection gets no further result."""
MAX_UNREAD_BYTES_A_PEER = 4 * MAX_DATA_BYTES
"""The same for all connections of a peer together."""
MAX_UNREAD_BYTES = 32 * MAX_DATA_BYTES
"""The same for all peers together: beyond it, only peers with nothing unread get results."""
TRACKED_BYTES = zmq.COPY_THRESHOLD
"""Smaller frames are copied by pyzmq; a connection's queue holds few enough of them."""


class _Unread(Struct):
    """What one connection has not read yet."""

    socket: Any
    waiting: deque[list[Any]] = field(default_factory=deque)
    """Messages that libzmq has not taken."""
    sent: deque[tuple[zmq.MessageTracker, int]] = field(default_factory=deque)
    """Large messages that libzmq holds, and their bytes."""
    num_bytes: int = 0
    """Bytes of all large messages at the last count."""

    def attempt(self, message: list[Any]) -> bool:
        """Whether a message needs no second try: libzmq has it, or its peer is gone."""
        large = _large_bytes(message)
        try:
            tracker = send_parts(self.socket, message, track=large > 0)
        except zmq.Again:
            return False
        except zmq.ZMQError as exc:
            log.debug("an answer was not sent: %s", exc)
            return True
        if tracker is not None and large:  # of a copied message pyzmq gives a tracker, too
            self.sent.append((tracker, large))
        return True

    def go_on(self) -> None:
        """Send as much of what waits as libzmq takes, and drop what libzmq has let go of."""
        while self.waiting and self.attempt(self.waiting[0]):
            self.waiting.popleft()
        while self.sent and self.sent[0][0].done:
            self.sent.popleft()

    def count(self) -> int:
        """Bytes of large messages now."""
        return sum(size for _, size in self.sent) + sum(map(_large_bytes, self.waiting))


class Outbox:
    """Answers on their way. Used by the data plane's thread alone."""

    def __init__(self) -> None:
        self._unread: dict[Path, _Unread] = {}
        self._bytes_of: dict[PeerId, int] = {}
        self.num_bytes = 0
        """Unread bytes of all peers, as far as they are tracked."""

    def __len__(self) -> int:
        """Connections that have something unread."""
        return len(self._unread)

    def is_full(self, path: Path) -> bool:
        """Whether this connection gets no further result now."""
        unread = self._unread.get(path)
        if unread is not None and (unread.waiting or unread.num_bytes >= MAX_UNREAD_BYTES_A_ROUTE):
            return True
        of_peer = self._bytes_of.get(path[0], 0)
        return of_peer >= MAX_UNREAD_BYTES_A_PEER or (of_peer > 0 and self.num_bytes >= MAX_UNREAD_BYTES)

    def send(self, peer_id: PeerId, socket: Any, route: Route, frames: list[Any]) -> None:
        """Send now or later, in order; where a connection never reads, its latest messages are dropped."""
        path, message = (peer_id, route), [*([] if route is None else [route]), *frames]
        unread = self._unread.get(path)
        if unread is None or unread.socket is not socket:  # of another socket: this node has dialled that peer anew
            unread = _Unread(socket)
        if (unread.waiting or not unread.attempt(message)) and len(unread.waiting) < MAX_UNSENT:
            unread.waiting.append(message)
        elif path not in self._unread and not unread.sent:
            return  # as nearly always: nothing is left to remember
        self._settle(path, unread)

    def send_again(self) -> None:
        """Try what waits once more, and notice what was read."""
        for path, unread in list(self._unread.items()):
            unread.go_on()
            self._settle(path, unread)

    def _settle(self, path: Path, unread: _Unread) -> None:
        """Count what a connection has not read; forget the connection where that is nothing."""
        before = self._unread.pop(path, None)
        change = -before.num_bytes if before is not None else 0
        unread.num_bytes = unread.count()
        change += unread.num_bytes
        self.num_bytes += change
        of_peer = self._bytes_of.pop(path[0], 0) + change
        if of_peer:
            self._bytes_of[path[0]] = of_peer
        if unread.waiting or unread.sent:
            self._unread[path] = unread


def _large_bytes(message: list[Any]) -> int:
    """Bytes of a message that are tracked: those of its last frame, where it is large."""
    size = len(message[-1])
    return size if size >= TRACKED_BYTES else 0


def send_or_wait(socket: Any, frames: list[Any]) -> bool:
    """Send without waiting; returns False only where another try may succeed (not where the peer is gone)."""
    return _Unread(socket).attempt(frames)
