"""Bytes between two sockets, in a thread of their own: what stands between a peer and a ROUTER of this node.

The C form holds no Python lock; the portable form is for machines without a compiler.
"""

from __future__ import annotations

import socket
import threading
from importlib import import_module
from typing import Any, Protocol

from node.errors import TransportError
from node.transport.portable_pump import PortablePump


class Pump(Protocol):
    """Pairs of connected sockets, non-blocking, whose bytes are passed on both ways until either ends."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Close every pair and end the thread; nothing else may be called after it."""

    def add(self, outer: socket.socket, inner: socket.socket) -> int:
        """Take over two sockets; returns the pair's id. Raises TransportError where there is no room (both are
        closed)."""

    def read(self, pair_id: int, num_bytes: int) -> None:
        """The reader behind the inner socket has taken so many bytes; of what it has not taken only so much is let
        through (from any thread)."""

    def close(self, pair_id: int) -> None:
        """End a pair, from any thread; nothing happens where it has ended."""

    @property
    def news_fd(self) -> int:
        """Readable while `ended` has something to say."""

    def ended(self) -> list[int]:
        """Pairs that have ended since the last call."""


class NativePump:
    """`pump.c`."""

    def __init__(self, max_unread_bytes: int, library: Any) -> None:
        self._lib = library.lib
        self._pump = self._lib.pump_new(max_unread_bytes)
        if not self._pump:
            raise TransportError("the system has no descriptor left for the pump: raise the limit (ulimit -n)")
        self._thread = threading.Thread(target=self._lib.pump_run, args=(self._pump,), name="pump", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._lib.pump_stop(self._pump)
        self._thread.join()
        self._lib.pump_free(self._pump)

    def add(self, outer: socket.socket, inner: socket.socket) -> int:
        pair_id = int(self._lib.pump_add(self._pump, outer.fileno(), inner.fileno()))
        if not pair_id:
            outer.close()
            inner.close()
            raise TransportError("no room for another connection")
        outer.detach()
        inner.detach()
        return pair_id

    def read(self, pair_id: int, num_bytes: int) -> None:
        self._lib.pump_read(self._pump, pair_id, num_bytes)

    def close(self, pair_id: int) -> None:
        self._lib.pump_close(self._pump, pair_id)

    @property
    def news_fd(self) -> int:
        return int(self._lib.pump_news_fd(self._pump))

    def ended(self) -> list[int]:
        ended = []
        while pair_id := int(self._lib.pump_next_closed(self._pump)):
            ended.append(pair_id)
        return ended


def new_pump(max_unread_bytes: int) -> Pump:
    """The fastest pump that this machine has.

    Args:
        max_unread_bytes: bytes of one pair that its reader may be behind before the pair is closed.
    """
    try:
        library = import_module("node.transport._pump")
    except ImportError:
        return PortablePump(max_unread_bytes)
    return NativePump(max_unread_bytes, library)
