"""What other threads ask of the data plane's thread: a queue that wakes whoever polls."""

from __future__ import annotations

import os
import queue
import threading

from msgspec import Struct

from node.transport.poller import Descriptor
from protocol.identity import PeerId


class Offer(Struct, frozen=True):
    """Dial this peer's data plane and serve over the connection."""

    peer_id: PeerId
    host: str
    port: int


class Borrow(Struct, frozen=True):
    """Connect a session's inproc pair to an attached peer."""

    peer_id: PeerId
    endpoint: str


class Look(Struct, frozen=True):
    """The disk reader has read something, or a part was computed."""


Command = Offer | Borrow | Look | None
"""None: end."""


class Commands:
    """Put from any thread, taken by one."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_over = False
        self.bell = Descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE))
        """Readable while something waits: it rings once for each, so that a command that fails stops no other."""

    def put(self, command: Command) -> None:
        """Add a command. It is dropped once nobody takes commands any more."""
        with self._lock:
            if not self._is_over:
                self._queue.put(command)
                os.eventfd_write(self.bell.fd, 1)

    def take(self) -> Command:
        """The oldest, after the bell has rung."""
        os.eventfd_read(self.bell.fd)
        return self._queue.get_nowait()

    def close(self) -> None:
        """Nobody takes any more. A second call does nothing."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                os.close(self.bell.fd)
