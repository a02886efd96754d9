"""A data connection that this node opens: made anew, with a new socket and a new knock, whenever it breaks.

libzmq never reconnects one of ours (`sockets`). Used by the one thread that owns its sockets; that thread polls
`pollables` and calls `look` when one of them is ready.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket as sockets
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import zmq
from msgspec import Struct
from zmq.utils.monitor import parse_monitor_message

from node.errors import TransportError
from node.transport.farewells import own
from node.transport.poller import Descriptor, Pollable
from node.transport.sockets import MAX_DATA_FRAME_BYTES, SecureContext
from protocol.identity import PeerId

log = logging.getLogger(__name__)

PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 5.0
"""Pauses before the connection is made again, doubled each time between the two, with jitter."""
ENDED = (
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_CLOSED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
)
WATCHED = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | sum(ENDED)
BYTES_RECEIVED = slice(128, 136)
"""Where `tcpi_bytes_received` lies in Linux's struct tcp_info (linux/tcp.h)."""

Socket = zmq.Socket[bytes]


class LineNews(Struct, frozen=True):
    """What happened to a connection since the last look."""

    up: bool
    """It is open, and was not before (or broke in between)."""
    losses: int
    """How often it broke."""


class Line:
    """One connection to the data plane of one peer.

    Args:
        context: where its sockets are made.
        host: an IP address, of IPv6 in brackets.
    """

    def __init__(
        self, secure: SecureContext, context: zmq.Context[Any], peer_id: PeerId, host: str, port: int
    ) -> None:
        self._secure = secure
        self._context = context
        self._peer_id = peer_id
        self._host = host
        self._port = port
        self._bell = Descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        """Readable when a knock has ended."""
        self._bell_lock = threading.Lock()
        self.socket: Socket | None = None
        self._monitor: Socket | None = None
        self._news: Descriptor | None = None
        """Readable when the monitor has something to say; it is always asked until it has nothing more."""
        self._connection: sockets.socket | None = None
        """What `socket` sends over."""
        self.connected = False
        self.closed = False
        self.generation = 0
        """Grows whenever `pollables` changes."""
        self._pause_s = 0.0
        self._knock()

    @property
    def pollables(self) -> list[Pollable]:
        """What to poll for input."""
        pollables: list[Pollable] = [] if self.closed else [self._bell]
        return pollables + [one for one in (self.socket, self._news) if one is not None]

    def look(self) -> LineNews:
        """Handle what has happened; never waits."""
        if self.closed:
            return LineNews(False, 0)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell.fd)
        if self.socket is None and self._knocking.done():
            self._knocked()
        up, losses = False, 0
        while (event := self._next_event()) is not None:
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected = up = True
                self._pause_s = 0.0
            elif event in ENDED:
                losses += self.connected
                up = False
                self.hang_up()
        return LineNews(up, losses)

    def hang_up(self) -> None:
        """End the connection that stands and begin to make another."""
        self._drop()
        self._knock()

    def num_bytes_received(self) -> int | None:
        """Bytes that the system has received over the connection that stands; None where it does not say."""
        if self._connection is None or not self.connected:
            return None
        try:
            info = self._connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, BYTES_RECEIVED.stop)
        except OSError:
            return None
        return int.from_bytes(info[BYTES_RECEIVED], "little") if len(info) == BYTES_RECEIVED.stop else None

    def close(self, linger_ms: int = 0) -> None:
        """End it for good; the last messages have this long to leave. A second call does nothing."""
        if self.closed:
            return
        self._drop(linger_ms)
        with self._bell_lock:  # a knock that ends now must not ring what may be another's descriptor by then
            self.closed = True
            os.close(self._bell.fd)
        self._knocking.cancel()

    def _knock(self) -> None:
        pause_s = self._pause_s * (0.5 + random.random())
        self._pause_s = min(max(2 * self._pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)
        self._knocking: Future[None] = self._secure.knocks.knock(self._peer_id, self._host, self._port, pause_s)
        self._knocking.add_done_callback(self._ring)

    def _ring(self, knocking: Future[None]) -> None:
        with self._bell_lock:
            if not self.closed:
                os.eventfd_write(self._bell.fd, 1)

    def _knocked(self) -> None:
        try:
            self._knocking.result()
        except CancelledError:
            return  # the node is stopping
        except TransportError as exc:
            log.debug("the data plane of %s cannot be reached: %s", self._peer_id, exc)
            self._knock()
            return
        try:
            self.socket = self._context.socket(zmq.DEALER)
            self._secure.dial(self.socket, self._peer_id, MAX_DATA_FRAME_BYTES)
            self._monitor = self.socket.get_monitor_socket(WATCHED)
            self._news = Descriptor(int(self._monitor.get(zmq.FD)))
            self.socket.connect(f"tcp://{self._host}:{self._port}")
        except zmq.ZMQError as exc:  # there may be no room for another socket now
            log.warning("the data plane of %s is not dialled: %s", self._peer_id, exc.strerror)
            self.hang_up()
        self.generation += 1

    def _next_event(self) -> int | None:
        """What the monitor tells next; None where it tells nothing now."""
        if self._monitor is None:
            return None
        try:
            news = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))
        except zmq.Again:
            return None
        if news["event"] == zmq.EVENT_CONNECTED:
            self._connection = own(int(news["value"]), self._port)
        return int(news["event"])

    def _drop(self, linger_ms: int = 0) -> None:
        self.generation += 1
        if self.socket is not None:
            while self._next_event() is not None:  # it may have been connected since the last look
                pass
            if self._monitor is not None:
                self.socket.disable_monitor()
                self._monitor.close(linger=0)
            self._secure.farewells.close(self.socket, self._connection, linger_ms)
        self.connected, self._connection, self.socket, self._monitor, self._news = False, None, None, None, None
