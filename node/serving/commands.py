"""What other threads ask of the data plane's thread: a queue that wakes whoever polls."""

from __future__ import annotations

import queue
import threading

import zmq
from msgspec import Struct

from protocol.identity import PeerId

WAKE_ENDPOINT = "inproc://data-plane-wake"


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

    def start(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        """The socket to poll; the thread that takes commands owns and closes it."""
        woken = context.socket(zmq.PAIR)
        woken.bind(WAKE_ENDPOINT)
        self._wake = context.socket(zmq.PAIR)
        self._wake.connect(WAKE_ENDPOINT)
        return woken

    def put(self, command: Command) -> None:
        """Add a command. It is dropped once nobody takes commands any more: without a reader the wake-up would wait
        for ever."""
        with self._lock:
            if not self._is_over:
                self._queue.put(command)
                self._wake.send(b"")

    def take(self) -> Command:
        """The oldest, after its wake-up was read."""
        return self._queue.get()

    def end(self) -> None:
        """Nobody takes any more."""
        with self._lock:
            self._is_over = True

    def close(self) -> None:
        """Once the thread has ended."""
        with self._lock:
            self._wake.close(linger=0)
