"""Limits what a connection may use before its first request: a slot, for a short time.

This stands between the transport and aiohttp's protocol, which would wait for a first request for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web

from node.gateway.http.limits import (
    FIRST_REQUEST_LIMIT_S,
    MAX_BODY_BYTES,
    MAX_CHUNKING_BYTES,
    MAX_CONNECTIONS,
    MAX_LINGER_BYTES,
    PROBE_COUNT,
    PROBE_IDLE_S,
    PROBE_INTERVAL_S,
)
from node.process.descriptors import raise_descriptor_limit

MAX_TAKEN_BYTES = MAX_BODY_BYTES + MAX_CHUNKING_BYTES + MAX_LINGER_BYTES
"""Most bytes taken for one request with a body; anything beyond stays in the network."""


class Connections:
    """Every open connection of a gateway, the longest idle first. Used only in the event loop."""

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self._limit = limit
        self._idle: OrderedDict[asyncio.BaseProtocol, Connection] = OrderedDict()
        self._busy: dict[asyncio.BaseProtocol, Connection] = {}

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    def opened(self, connection: Connection) -> bool:
        """Take a slot, if necessary from the connection that has been idle longest; returns whether there was one."""
        if len(self) >= self._limit:
            if not self._idle:
                return False
            _, oldest = self._idle.popitem(last=False)
            oldest.abort()
        self._idle[connection.inner] = connection
        return True

    def closed(self, connection: Connection) -> None:
        """Give the slot back."""
        self._idle.pop(connection.inner, None)
        self._busy.pop(connection.inner, None)

    def began(self, request: web.Request) -> None:
        """A request's head is complete."""
        connection = self._idle.pop(request.protocol, None)
        if connection is not None:
            connection.asked(has_body=request.body_exists)
            self._busy[connection.inner] = connection

    def taken_bytes(self, request: web.Request) -> int:
        """How many bytes of a request's body have come, with the overhead of chunking."""
        connection = self._busy.get(request.protocol)
        return 0 if connection is None else connection.taken_bytes

    def name_of(self, request: web.Request) -> str | None:
        """A unique name for the connection over which a request came; it is never used for another."""
        connection = self._busy.get(request.protocol)
        return None if connection is None else connection.name

    def ended(self, request: web.Request) -> None:
        """A request was answered; its connection is idle again."""
        connection = self._busy.pop(request.protocol, None)
        if connection is not None:
            self._idle[connection.inner] = connection


class Connection(asyncio.Protocol):
    """One connection. It passes everything to `inner`, and closes if no request comes in time."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self.inner = inner
        self.name = secrets.token_hex(8)
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_body = False
        self.taken_bytes = 0
        """Bytes that have come since the head of the latest request was complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _probe(transport.get_extra_info("socket"))
        if not self._connections.opened(self):
            transport.abort()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FIRST_REQUEST_LIMIT_S, self.abort)
        self.inner.connection_made(transport)

    def asked(self, has_body: bool) -> None:
        """A request's head is complete: from now on aiohttp's limits apply, and ours on the body."""
        self._stop_timer()
        self._has_body, self.taken_bytes = has_body, 0

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """Close it at once, even if data is still unsent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._connections.closed(self)
        self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.taken_bytes += len(data)
        if self._has_body and self.taken_bytes > MAX_TAKEN_BYTES and self._transport is not None:
            # The request was refused long before, and aiohttp closes the connection soon. We pass aiohttp no more
            # data, because it would drop the data at once and ask for more.
            self._transport.pause_reading()
            return
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


def guarded(make: Callable[[], asyncio.Protocol], connections: Connections) -> Callable[[], Connection]:
    """A protocol factory whose connections are counted and timed."""
    return lambda: Connection(make(), connections)


def room_for_connections() -> int:
    """How many connections a gateway may have, given what the rest of the node needs."""
    return min(MAX_CONNECTIONS, raise_descriptor_limit() // 2)


def _probe(connection: socket.socket | None) -> None:
    """Let the system detect a half-open TCP connection (a Unix socket cannot be half open)."""
    if connection is None or connection.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):  # the other side may be gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBE_COUNT)
