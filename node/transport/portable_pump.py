"""The pump for machines without a compiler: the same rules as pump.c, in a Python thread."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading

from msgspec import Struct, field

from node.errors import TransportError

CHUNK_BYTES = 65536


class _End(Struct, eq=False):
    """One socket of a pair."""

    socket: socket.socket
    unsent: bytes = b""
    """Bytes for this end that it has not taken yet."""
    finished: bool = False
    """Nothing more will be read from it."""
    shut: bool = False
    """It has been told that nothing more will be written to it."""


class _Pair(Struct, eq=False):
    id: int
    outer: _End
    inner: _End
    received: int = 0
    """Bytes passed from the outer to the inner end."""
    read: int = 0
    """How many of these the reader has accounted for."""
    closing: bool = False
    watched: dict[socket.socket, int] = field(default_factory=dict)


class PortablePump:
    """A `Pump` in Python."""

    def __init__(self, max_unread_bytes: int) -> None:
        self._max_unread_bytes = max_unread_bytes
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pairs: dict[int, _Pair] = {}
        self._added: list[_Pair] = []
        self._ended: list[int] = []
        self._next_id = 1
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)

    def start(self) -> None:
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
        self._wake_up()
        self._thread.join()
        self._selector.close()
        self._wake.close()
        self._woken.close()
        os.close(self._news)

    def add(self, outer: socket.socket, inner: socket.socket) -> int:
        with self._lock:
            if self._stopping:
                outer.close()
                inner.close()
                raise TransportError("no room for another connection")
            pair = _Pair(self._next_id, _End(outer), _End(inner))
            self._next_id += 1
            self._pairs[pair.id] = pair
            self._added.append(pair)
        self._wake_up()
        return pair.id

    def read(self, pair_id: int, num_bytes: int) -> None:
        with self._lock:
            pair = self._pairs.get(pair_id)
            if pair is not None:
                pair.read += num_bytes

    def close(self, pair_id: int) -> None:
        with self._lock:
            pair = self._pairs.get(pair_id)
            if pair is not None:
                pair.closing = True
                with contextlib.suppress(OSError):
                    pair.outer.socket.shutdown(socket.SHUT_RDWR)

    @property
    def news_fd(self) -> int:
        return self._news

    def ended(self) -> list[int]:
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def _wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"\0")

    # --- the thread

    def _run(self) -> None:
        while True:
            with self._lock:
                added, self._added = self._added, []
                stopping = self._stopping
            if stopping:
                break
            for pair in added:
                self._watch(pair)
            for key, _events in self._selector.select():
                if key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(CHUNK_BYTES)
                elif key.data.id in self._pairs:  # its other end may have ended it in this very turn
                    self._turn(key.data)
        for pair in list(self._pairs.values()):
            self._end(pair)

    def _turn(self, pair: _Pair) -> None:
        outer, inner = pair.outer, pair.inner
        try:
            for end in (outer, inner):
                _write(end, b"")
            came = _move(outer, inner)
            _move(inner, outer)
            with self._lock:
                pair.received += came
                ends = pair.closing or pair.received - pair.read > self._max_unread_bytes
            for source, target in ((outer, inner), (inner, outer)):
                if source.finished and not target.unsent and not target.shut:
                    target.shut = True
                    target.socket.shutdown(socket.SHUT_WR)
        except OSError:
            ends = True
        if ends or (outer.shut and inner.shut):
            self._end(pair)
        else:
            self._watch(pair)

    def _watch(self, pair: _Pair) -> None:
        for end, other in ((pair.outer, pair.inner), (pair.inner, pair.outer)):
            wanted = selectors.EVENT_READ if not end.finished and not other.unsent else 0
            wanted |= selectors.EVENT_WRITE if end.unsent else 0
            before = pair.watched.get(end.socket, 0)
            if wanted == before:
                continue
            if not before:
                self._selector.register(end.socket, wanted, pair)
            elif not wanted:
                self._selector.unregister(end.socket)
            else:
                self._selector.modify(end.socket, wanted, pair)
            pair.watched[end.socket] = wanted

    def _end(self, pair: _Pair) -> None:
        with self._lock:
            for end in (pair.outer, pair.inner):
                if pair.watched.pop(end.socket, 0):
                    self._selector.unregister(end.socket)
                end.socket.close()
            del self._pairs[pair.id]
            self._ended.append(pair.id)
        os.eventfd_write(self._news, 1)


def _write(to: _End, data: bytes) -> None:
    """Write what waits for an end, then `data`; what it does not take waits. Raises OSError where it is broken."""
    to.unsent += data
    if to.unsent:
        with contextlib.suppress(BlockingIOError):
            to.unsent = to.unsent[to.socket.send(to.unsent) :]


def _move(source: _End, target: _End) -> int:
    """Move at most one chunk; returns the bytes moved. Raises OSError where one end is broken."""
    if source.finished or target.unsent:
        return 0
    try:
        data = source.socket.recv(CHUNK_BYTES)
    except BlockingIOError:
        return 0
    source.finished = not data
    _write(target, data)
    return len(data)
