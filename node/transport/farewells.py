"""The end of connections whose sockets were closed: at once, or after what was sent last had a moment to leave.

libzmq 4.3.5 aborts the process where a connection breaks in the moment in which a closed socket gives up a message of
several frames that was half sent (session_base.cpp:233). So a socket is closed with a longer linger than is meant,
and the connection itself is shut down when its time is over.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import threading
import time
from typing import Any

import zmq

PATIENCE_MS = 700
"""What a socket is told to wait where its connection ends sooner. It matters where libzmq does not see the end, as it
does not while nobody reads what it has received."""


def own(descriptor: int, port: int) -> sockets.socket | None:
    """A connection of libzmq's as a socket of this program; None where it has ended by now.

    Args:
        descriptor: libzmq's, which it may have closed already; the number may be another connection's by now.
        port: whom the connection is to.
    """
    try:
        connection = sockets.socket(fileno=os.dup(descriptor))
    except OSError:  # closed, or no socket
        return None
    with contextlib.suppress(OSError):  # not connected
        if connection.family in (sockets.AF_INET, sockets.AF_INET6) and connection.getpeername()[1] == port:
            return connection
    connection.close()
    return None


class Farewells:
    """Ends connections when their time has come, in a thread of its own; usable from any thread."""

    def __init__(self) -> None:
        self._leaving: list[tuple[float, sockets.socket]] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def close(self, socket: zmq.Socket[Any], connection: sockets.socket | None, linger_ms: int) -> None:
        """Close a socket; what was sent last has so long to leave.

        Args:
            connection: what it sends over (taken over), None where there is none.
        """
        if connection is None:
            socket.close(linger=0)
            return
        socket.close(linger=linger_ms + PATIENCE_MS)
        with self._changed:
            if not linger_ms or self._stopped:
                _end(connection)
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="farewells", daemon=True)
                self._thread.start()
            self._leaving.append((time.monotonic() + linger_ms / 1000, connection))
            self._changed.notify()

    def stop(self) -> None:
        """Wait until every connection has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for one in [one for one in self._leaving if one[0] <= now]:
                    self._leaving.remove(one)
                    _end(one[1])
                if self._stopped and not self._leaving:
                    return
                self._changed.wait(min(at for at, _ in self._leaving) - now if self._leaving else None)


def _end(connection: sockets.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        connection.shutdown(sockets.SHUT_RDWR)
    connection.close()
