"""Every socket is made here: CURVE always on, ZAP enforced, queues and sizes bounded.

Facts behind the choices (libzmq 4.3.5): ZAP fails open unless a domain is set *and* enforced; routing ids
are not bound to CURVE keys, so none is ever set; without IMMEDIATE stale requests would be delivered later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Self

import zmq
import zmq.asyncio
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from node.errors import ConfigError, TransportError
from protocol.identity import Identity, curve_public_key_of, public_key_of
from protocol.limits import MAX_DATA_BYTES, MAX_DATA_HEADER_BYTES
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

ZAP_DOMAIN = b"kek"
HIGH_WATER_MARK_MESSAGES = 256
"""Messages that wait in a socket for one connection; what we send ourselves, and small control frames."""
DATA_HIGH_WATER_MARK_MESSAGES = 32
"""The same for what others make us hold: with frames of 8 MiB, 256 MiB a connection at the very most."""
MAX_SOCKETS = 4096
"""libzmq's own limit of 1023 is near where many members are linked and sessions run beside."""
IO_THREADS = 8
"""Threads that encrypt. One message of 2 MiB takes one of them 5 ms, and all connections of that thread wait: with
two, large answers to one peer held up half of the others."""
HANDSHAKE_TIMEOUT_MS = 3000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 5000
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 5000
CURVE_OVERHEAD_BYTES = 33
"""What a CurveZMQ MESSAGE adds to a frame; libzmq counts it."""
MAX_DATA_FRAME_BYTES = MAX_DATA_BYTES + MAX_DATA_HEADER_BYTES


class _Gate:
    """ZAP's question, answered: any key may knock (the hello decides), unless its peer is banned."""

    def __init__(self, is_banned: Callable[[bytes], bool]) -> None:
        self._is_banned = is_banned

    def callback(self, domain: str, key: bytes) -> bool:
        return domain == ZAP_DOMAIN.decode() and not self._is_banned(z85.decode(key))


class SecureContext:
    """A ZeroMQ context with its ZAP handler running before any socket can be bound.

    Use as a context manager; closing it ends the handler and every socket.
    """

    def __init__(self, identity: Identity, is_banned: Callable[[bytes], bool] = lambda curve_key: False) -> None:
        """`is_banned` is asked, in the handler's thread, for every connection (32 raw bytes of X25519 key)."""
        self.identity = identity
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(IO_THREADS)
        self.context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._gate = _Gate(is_banned)
        self._authenticator = ThreadAuthenticator(self.context)

    def __enter__(self) -> Self:
        self._authenticator.start()
        self._authenticator.configure_curve_callback(ZAP_DOMAIN.decode(), self._gate)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._authenticator.stop()
        self.context.destroy(linger=0)

    def listen(self, socket: zmq.Socket[Any], max_frame_bytes: int) -> None:
        """Prepare a ROUTER that others dial."""
        _bound(socket, max_frame_bytes)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.curve_server = True
        socket.curve_secretkey = z85.encode(self.identity.curve_secret_key)
        socket.curve_publickey = z85.encode(self.identity.curve_public_key)
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def dial(self, socket: zmq.Socket[Any], peer_id: str, max_frame_bytes: int) -> None:
        """Prepare a DEALER that connects to one peer, whose key is in its PeerID."""
        _bound(socket, max_frame_bytes)
        socket.curve_serverkey = z85.encode(curve_public_key_of(public_key_of(peer_id)))
        socket.curve_secretkey = z85.encode(self.identity.curve_secret_key)
        socket.curve_publickey = z85.encode(self.identity.curve_public_key)


def _bound(socket: zmq.Socket[Any], max_frame_bytes: int) -> None:
    others = HIGH_WATER_MARK_MESSAGES if max_frame_bytes < MAX_DATA_BYTES else DATA_HIGH_WATER_MARK_MESSAGES
    options = {
        zmq.LINGER: 0,
        zmq.IMMEDIATE: 1,
        zmq.SNDHWM: others if socket.type == zmq.ROUTER else HIGH_WATER_MARK_MESSAGES,
        zmq.RCVHWM: others,
        zmq.MAXMSGSIZE: max_frame_bytes + CURVE_OVERHEAD_BYTES,
        zmq.HANDSHAKE_IVL: HANDSHAKE_TIMEOUT_MS,
        zmq.CONNECT_TIMEOUT: HANDSHAKE_TIMEOUT_MS,
        zmq.RECONNECT_IVL: RECONNECT_MS,
        zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
        zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
        zmq.IPV6: 1,
    }
    for option, value in options.items():
        socket.setsockopt(option, value)


def curve_key_of_frame(frame: zmq.Frame) -> bytes:
    """The X25519 key (32 raw bytes) that CURVE proved for the sender of a received frame."""
    return _curve_key(str(frame.get("User-Id")))


@lru_cache(maxsize=MAX_SOCKETS)
def _curve_key(user_id: str) -> bytes:
    """Decoded in Python, which takes longer than the rest of reading a small message."""
    return bytes(z85.decode(user_id))


def zmq_host(host: str) -> str:
    """ZeroMQ's form of a host: IPv6 in brackets, IPv4 without its mapping prefix."""
    plain = host.removeprefix("::ffff:")
    return f"[{plain}]" if ":" in plain else plain


def send_now(socket: zmq.asyncio.Socket, frames: list[bytes | memoryview]) -> bool:
    """Send without waiting; False when the peer is gone or its queue is full (it will time out)."""
    # With DONTWAIT the future is done when it is returned, unless another send still waits for its connection.
    sending: Any = socket.send_multipart(frames, flags=zmq.DONTWAIT)
    if not sending.done():
        sending.cancel()
        return False
    exc = sending.exception()
    if exc is not None:
        log.debug("a control frame was not sent: %s", exc)
    return exc is None


def connect_socket(socket: Any, address: Multiaddr) -> None:
    """Begin to connect; raises TransportError for an address that ZeroMQ cannot use. Names were resolved before."""
    assert address.protocol in ("ip4", "ip6"), "libzmq must not look names up"
    try:
        socket.connect(address.endpoint)
    except zmq.ZMQError as exc:
        raise TransportError(f"cannot dial {address}: {exc.strerror}") from exc


def bind_socket(socket: Any, listen: Multiaddr) -> Multiaddr:
    """Bind a socket; the address with the port really bound. Raises ConfigError with the reason and the next step."""
    try:
        if listen.port:
            socket.bind(listen.endpoint)
            return listen
        return listen.with_port(socket.bind_to_random_port(listen.with_port(0).endpoint.rsplit(":", 1)[0]))
    except zmq.ZMQError as exc:
        reason = "the port is in use" if exc.errno == zmq.EADDRINUSE else exc.strerror
        raise ConfigError(
            f"cannot listen on {listen}: {reason}; choose another with --listen (port 0 takes any free one)"
        ) from exc
