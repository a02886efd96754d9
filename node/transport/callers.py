"""Open connections of members, and how a frame from a ROUTER is traced back to one of them.

libzmq says which descriptor a frame came over; the other end of that Unix socket has a name, which is a number.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import zmq
from msgspec import Struct
from msgspec.structs import replace
from zmq.utils import z85


class Caller(Struct, frozen=True, eq=False):
    """An open connection."""

    host: str
    """Where it comes from, in ZeroMQ's form."""
    curve_key: bytes
    """Whose proof let it in."""
    pair_id: int
    """Its number in the pump."""


class Callers:
    """Every connection by its number and by its pair in the pump; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_number: dict[int, Caller] = {}
        self._numbers: dict[int, int] = {}
        """By pair."""

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, host: str, curve_key: bytes, connect: Callable[[], int]) -> None:
        """`connect` gives the pair's id; nobody can trace a frame of it before it is known here."""
        with self._lock:
            pair_id = connect()
            self._by_number[number] = Caller(host, curve_key, pair_id)
            self._numbers[pair_id] = number

    def remove(self, pair_id: int) -> None:
        with self._lock:
            number = self._numbers.pop(pair_id, None)
            if number is not None:
                del self._by_number[number]

    def known(self, caller: Caller, curve_key: bytes) -> Caller:
        """CURVE has said whose connection it is: of two members of one host that come together, one may have used
        the other's proof."""
        if caller.curve_key == curve_key:
            return caller
        corrected = replace(caller, curve_key=curve_key)
        with self._lock:
            number = self._numbers.get(caller.pair_id)
            if number is not None:
                self._by_number[number] = corrected
        return corrected

    def of_key(self, curve_key: bytes) -> list[Caller]:
        """Connections that proofs of one key let in."""
        with self._lock:
            return [caller for caller in self._by_number.values() if caller.curve_key == curve_key]

    def of_frame(self, frame: zmq.Frame) -> Caller | None:
        """The connection that a frame came over; None where the connection has ended."""
        try:
            with socket.socket(fileno=os.dup(int(str(frame.get("__fd"))))) as inner:
                number = int(Path(str(inner.getpeername())).name)
        except (OSError, ValueError, zmq.ZMQError):
            return None
        with self._lock:
            return self._by_number.get(number)


MAX_ROUTES = 4096
FRAME_OVERHEAD_BYTES = 64
"""More than CURVE and ZMTP add to a frame (33 and at most 9 bytes)."""


class Routes:
    """Routing ids of one ROUTER and the connections behind them. Used by the thread that reads it.

    Args: num_read: called for messages that were read, with their connection and at least as many bytes as they had
    on the wire.
    """

    def __init__(self, callers: Callers, num_read: Callable[[Caller, int], None]) -> None:
        self._callers = callers
        self._num_read = num_read
        self._known: OrderedDict[bytes, Caller] = OrderedDict()

    def took(self, route: bytes, frames: Sequence[zmq.Frame]) -> Caller | None:
        """A message was read: account for it. Returns its connection; None where that has ended."""
        caller = self._known.get(route)
        if caller is None:
            caller = self._callers.of_frame(frames[-1])
            if caller is None:
                return None
            caller = self._known[route] = self._callers.known(caller, curve_key_of_frame(frames[-1]))
            if len(self._known) > MAX_ROUTES:
                self._known.popitem(last=False)
        self._num_read(caller, sum(len(frame) + FRAME_OVERHEAD_BYTES for frame in frames))
        return caller

    def read(self, route: bytes, num_bytes: int, num_frames: int) -> None:
        """More was read of a connection of which a message was read before."""
        caller = self._known.get(route)
        if caller is not None:
            self._num_read(caller, num_bytes + num_frames * FRAME_OVERHEAD_BYTES)


def curve_key_of_frame(frame: zmq.Frame) -> bytes:
    """The X25519 key (32 raw bytes) that CURVE proved for the sender of a received frame."""
    return _curve_key(str(frame.get("User-Id")))


@lru_cache(maxsize=MAX_ROUTES)
def _curve_key(user_id: str) -> bytes:
    """Decoding it in Python takes longer than all the rest of reading a small message."""
    return bytes(z85.decode(user_id))
