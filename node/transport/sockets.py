"""Every socket is made here: CURVE always on, ZAP enforced, queues and sizes bounded.

Facts behind the choices (libzmq 4.3.5): ZAP fails open unless a domain is set *and* enforced; routing ids
are not bound to CURVE keys, so none is ever set; without IMMEDIATE stale requests would be delivered later.
A connection that is reset while its queue is full makes the next ZMTP heartbeat, or a reconnection by libzmq, abort
the process (libzmq issues 3937, 3596, 4364, 4767, open): there are no heartbeats, and no socket connects twice.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Self

import zmq
import zmq.asyncio
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from node.errors import ConfigError, TransportError
from node.transport.farewells import Farewells
from node.transport.gate import Gate
from node.transport.knock import Knocks
from protocol.identity import Identity, curve_public_key_of, public_key_of
from protocol.limits import MAX_DATA_BYTES, MAX_DATA_HEADER_BYTES
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

ZAP_DOMAIN = b"kek"
HIGH_WATER_MARK_MESSAGES = 256
"""Most messages that wait in a socket for one connection: our own messages, and small control frames."""
DATA_HIGH_WATER_MARK_MESSAGES = 32
"""The same for messages that others make us hold: with frames of 8 MiB, at most 256 MiB for each connection."""
MAX_SOCKETS = 4096
"""Most sockets: many linked members and running sessions come near libzmq's own limit of 1023."""
IO_THREADS = 8
"""Threads that encrypt. One message of 2 MiB takes one of them 5 ms, and all connections of that thread wait: with
two, large answers to one peer held up half of the others."""
HANDSHAKE_TIMEOUT_MS = 3000
NEVER = -1
MAX_PORT = 65535
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
CURVE_OVERHEAD_BYTES = 33
"""What a CurveZMQ MESSAGE adds to a frame; libzmq counts it."""
PAIR_HIGH_WATER_MARK = 16
"""Messages that wait on each side of an inproc pair: with 8 MiB each, what an idle session may be made to hold."""
MAX_DATA_FRAME_BYTES = MAX_DATA_BYTES + MAX_DATA_HEADER_BYTES


class _Zap:
    """Answers ZAP: lets in whoever gave a proof at the door a moment ago and is not banned."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def callback(self, domain: str, key: bytes) -> bool:
        try:
            return domain == ZAP_DOMAIN.decode() and self._gate.admits(z85.decode(key))
        except Exception:  # pyzmq's thread would end by it, and nobody would be let in any more
            log.exception("a connection was refused")
            return False


class SecureContext:
    """A ZeroMQ context behind its gate, with its ZAP handler running before any socket can be bound.

    Use as a context manager; closing it ends the gate, the handler and every socket.
    """

    def __init__(
        self,
        identity: Identity,
        is_banned: Callable[[bytes], bool] = lambda curve_key: False,
        swarm: SwarmKey | None = None,
    ) -> None:
        """`is_banned` is asked, in other threads, for every connection (32 raw bytes of X25519 key); `swarm` is what
        opens doors, None in an open swarm."""
        self.identity = identity
        self.gate = Gate(identity, swarm, is_banned)
        self.knocks = Knocks(identity, swarm)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(IO_THREADS)
        self.context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self.farewells = Farewells()
        self._authenticator = ThreadAuthenticator(self.context)

    def __enter__(self) -> Self:
        self._authenticator.start()
        self._authenticator.configure_curve_callback(ZAP_DOMAIN.decode(), _Zap(self.gate))
        self.gate.start()
        self.knocks.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.knocks.stop()
        self._authenticator.stop()
        self.gate.stop()
        self.farewells.stop()
        self.context.destroy(linger=0)

    def listen(self, socket: zmq.Socket[Any], plane: str, listen: Multiaddr, max_frame_bytes: int) -> Multiaddr:
        """Let others dial a ROUTER; the address with the port really bound. Raises ConfigError with the next step.

        Args:
            plane: a name for it, of this process alone.
        """
        _bound(socket, max_frame_bytes)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.curve_server = True
        socket.curve_secretkey = z85.encode(self.identity.curve_secret_key)
        socket.curve_publickey = z85.encode(self.identity.curve_public_key)
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        return self.gate.bind(plane, socket, listen)

    def listen_beside(self, socket: zmq.Socket[Any], plane: str, listen: Multiaddr, max_frame_bytes: int) -> int:
        """The same at the port after that of another plane, so that a firewall can be told; any free one where that
        is taken. Returns the port."""
        if 0 < listen.port < MAX_PORT:
            with contextlib.suppress(ConfigError):
                return self.listen(socket, plane, listen.with_port(listen.port + 1), max_frame_bytes).port
        return self.listen(socket, plane, listen.with_port(0), max_frame_bytes).port

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
        zmq.RECONNECT_IVL: NEVER,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_IDLE_S,
        zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_INTERVAL_S,
        zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_COUNT,
        zmq.IPV6: 1,
    }
    for option, value in options.items():
        socket.setsockopt(option, value)


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


# Plain integers: the library's flags are slow to combine, and every chunk passes here.
_DONTWAIT, _SNDMORE = int(zmq.DONTWAIT), int(zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def receive_frames(socket: Any, expected: bool = False) -> list[zmq.Frame] | None:
    """The next message, not copied; None where none has come.

    Args:
        expected: whether a poll has just found one. Otherwise it is asked for first, which is cheaper than an
            exception.
    """
    if not expected and not socket.get(_EVENTS) & _POLLIN:
        return None
    try:
        frames = [socket.recv(_DONTWAIT, copy=False)]
        while frames[-1].more:
            frames.append(socket.recv(0, copy=False))
    except zmq.Again:
        return None
    return frames


def send_parts(socket: Any, parts: list[Any], track: bool = False) -> zmq.MessageTracker | None:
    """Send without waiting, all parts or none. Large parts are not copied.

    Args:
        track: whether to return what tells when the socket has let go of the last part.

    Raises:
        zmq.ZMQError: the socket took none of them.
    """
    for part in parts[:-1]:
        socket.send(part, _DONTWAIT | _SNDMORE, copy=False)
    tracker: zmq.MessageTracker | None = socket.send(parts[-1], _DONTWAIT, copy=False, track=track)
    return tracker


def send_frames(socket: Any, frames: list[Any]) -> bool:
    """Send without waiting; False when the peer is gone or does not read (the other side times out)."""
    try:
        send_parts(socket, frames)
    except zmq.ZMQError as exc:
        log.debug("a data frame was not sent: %s", exc)
        return False
    return True


def send_to_route(router: Any, route: bytes, frames: list[Any]) -> bool:
    """Send over one connection of a ROUTER without waiting; False where the connection has ended."""
    try:
        send_parts(router, [route, *frames])
    except zmq.ZMQError as exc:
        log.debug("a data frame was not sent: %s", exc)
        return exc.errno != zmq.EHOSTUNREACH
    return True
