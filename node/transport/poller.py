"""Waits for messages on many sockets at once, with one look at each and one call of the system.

`zmq.Poller` asks the system twice, and each socket twice. A client waits a hundred times a token, its peers as often.
"""

from __future__ import annotations

import math
import select
import time
from typing import Any

import zmq
from msgspec import Struct


class Descriptor(Struct, eq=False):
    """A descriptor that stays readable until it is read. Its number may be another's once it is closed."""

    fd: int

    def fileno(self) -> int:
        return self.fd


Pollable = zmq.Socket[bytes] | Descriptor

_EVENTS, _POLLIN, _FD = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.FD)


class Poller:
    """Used by one thread, which owns the sockets."""

    def __init__(self) -> None:
        self._system = select.poll()
        self._by_fd: dict[int, Pollable] = {}
        self._fds: dict[zmq.Socket[bytes], int] = {}
        """Of sockets: their descriptors, which become readable when something changes, and not while it stays so."""

    def register(self, one: Pollable) -> None:
        """Wait for this one, too."""
        if isinstance(one, Descriptor):
            fd = one.fd
        else:
            fd = self._fds[one] = int(one.get(_FD))
        self._by_fd[fd] = one
        self._system.register(fd, select.POLLIN)

    def unregister(self, one: Pollable) -> None:
        """Wait for it no more. It may be closed already."""
        fd = one.fd if isinstance(one, Descriptor) else self._fds.pop(one)
        if self._by_fd.get(fd) is one:  # else it was closed, and its number is another's
            del self._by_fd[fd]
            self._system.unregister(fd)

    def quiet_others(self, socket: zmq.Socket[bytes]) -> list[int] | None:
        """The descriptors of all but this one; None where another socket has a message, of which its descriptor does
        not tell again."""
        own = self._fds[socket]
        if any(_has_message(other) for other in self._fds if other is not socket):
            return None
        return [fd for fd in self._by_fd if fd != own]

    def poll(self, timeout_s: float | None) -> list[Pollable]:
        """Those that can be read, as soon as there is one; empty after `timeout_s`. None: it waits for ever."""
        ready: list[Pollable] = [socket for socket in self._fds if _has_message(socket)]
        ends_at = 0.0 if ready or timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_ms = None
            if ready:
                left_ms = 0
            elif timeout_s is not None:
                left_ms = max(0, math.ceil(1000 * (ends_at - time.monotonic())))
            for fd, _events in self._system.poll(left_ms):
                one = self._by_fd[fd]
                if isinstance(one, Descriptor) or (one not in ready and _has_message(one)):
                    ready.append(one)
            if ready or left_ms == 0:
                return ready


def _has_message(socket: Any) -> bool:
    return bool(socket.get(_EVENTS) & _POLLIN)
