"""The control plane: one ROUTER that others dial, one DEALER for each peer this node dials.

Runs in a thread of its own with its own event loop, so that neither generation nor the terminal ever delays
a ping. It decides nothing: `protocol.handshake` says what is legal, the registry holds what was learned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import zmq
import zmq.asyncio

from node.errors import ConfigError, TransportError
from node.transport.registry import DialOutcome, DialState, PeerRegistry, peer_of_hello
from node.transport.sockets import SecureContext, curve_key_of_frame
from protocol.errors import RemoteProtocolError
from protocol.handshake import Handshake, HandshakeError, LinkState, Side
from protocol.identity import PeerId, curve_public_key_of, public_key_of
from protocol.limits import MAX_CONTROL_FRAME_BYTES
from protocol.messages import (
    ErrorCode,
    ErrorReply,
    GoAway,
    Hello,
    HelloOk,
    Message,
    Ping,
    Pong,
    Received,
    UnknownMessageError,
    decode_message,
    encode_message,
)
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 3.0
PING_INTERVAL_S = 1.0
SILENCE_LIMIT_S = 5.0
"""A link without a frame for this long is gone: five pings."""
REDIAL_FIRST_S = 0.2
REDIAL_MAX_S = 5.0
MAX_INBOUND_LINKS = 256
FAREWELL_S = 0.05
"""Time for others to read our goodbye: with IMMEDIATE a DEALER drops what was not read when its connection ends."""

HelloFactory = Callable[[], Hello]


@dataclass(slots=True)
class _Inbound:
    """A link that a peer opened."""

    handshake: Handshake
    heard_at: float
    host: str


@dataclass(slots=True)
class _State:
    """What lives as long as the loop does."""

    router: zmq.asyncio.Socket | None = None
    inbound: dict[bytes, _Inbound] = field(default_factory=dict)
    outbound: dict[str, zmq.asyncio.Socket] = field(default_factory=dict)


class ControlPlane:
    """Keeps links alive and the registry true. `start` returns once the address is bound."""

    def __init__(
        self,
        secure: SecureContext,
        registry: PeerRegistry,
        hello: HelloFactory,
        queued: Callable[[], int] = lambda: 0,
        on_up: Callable[[PeerId], None] = lambda peer_id: None,
    ) -> None:
        self._secure = secure
        self._registry = registry
        self._hello = hello
        self._queued = queued
        self._on_up = on_up
        self._context = zmq.asyncio.Context.shadow(secure.context)
        self._state = _State()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self, listen: Multiaddr | None, bootstrap: list[Multiaddr]) -> Multiaddr | None:
        """Bind and dial; the address really bound, or None when nobody is to dial in.

        Raises ConfigError when the address cannot be bound.
        """
        bound: Future[Multiaddr | None] = Future()
        self._thread = threading.Thread(
            target=self._main, args=(listen, bootstrap, bound), name="control plane", daemon=True
        )
        self._thread.start()
        return bound.result()

    def stop(self, reason: str = "the node is stopping") -> None:
        """Say goodbye on every link and end the thread."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._farewell = reason
            with contextlib.suppress(RuntimeError):  # the loop is closed where the plane ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    _farewell = ""

    def _main(self, listen: Multiaddr | None, bootstrap: list[Multiaddr], bound: Future[Multiaddr | None]) -> None:
        try:
            asyncio.run(self._run(listen, bootstrap, bound))
        except BaseException as exc:
            if bound.done():
                log.exception("the control plane ended")
            else:
                bound.set_exception(exc)

    async def _run(
        self, listen: Multiaddr | None, bootstrap: list[Multiaddr], bound: Future[Multiaddr | None]
    ) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            address = self._bind(listen) if listen is not None else None
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self._keep_dialled(peer)) for peer in bootstrap]
                if self._state.router is not None:
                    running += [tasks.create_task(self._serve(self._state.router)), tasks.create_task(self._expire())]
                bound.set_result(address)
                await self._stop.wait()
                self._say_goodbye()
                for task in running:
                    task.cancel()
        finally:
            await asyncio.sleep(FAREWELL_S if self._state.inbound else 0)
            self._close()

    def _bind(self, listen: Multiaddr) -> Multiaddr:
        router = self._context.socket(zmq.ROUTER)
        self._secure.listen(router, MAX_CONTROL_FRAME_BYTES)
        self._state.router = router
        return bind_socket(router, listen).with_peer(self._secure.identity.peer_id)

    # --- links that others opened

    async def _serve(self, router: zmq.asyncio.Socket) -> None:
        while True:
            route, *frames = await router.recv_multipart(copy=False)
            if frames:
                self._handle_inbound(bytes(route.buffer), frames)
            await asyncio.sleep(0)  # a receive that is ready does not yield: whoever floods would have the loop alone

    def _handle_inbound(self, route: bytes, frames: list[zmq.Frame]) -> None:
        link = self._inbound_link(route, str(frames[-1].get("Peer-Address")))
        if link is None:
            return
        try:
            received = decode_message([frame.buffer for frame in frames], MAX_CONTROL_FRAME_BYTES)
        except UnknownMessageError as exc:
            self._answer(route, ErrorReply(ErrorCode.UNIMPLEMENTED, str(exc)), exc.message_id)
            return
        except RemoteProtocolError as exc:
            log.warning("a frame from %s was dropped: %s", link.host, exc)
            return
        try:
            link.handshake.receive(received.message, curve_key_of_frame(frames[-1]))
        except HandshakeError as exc:
            log.warning("%s was refused: %s", link.host, exc)
            self._answer(route, ErrorReply(exc.code, str(exc)), received.id)
            return
        except RemoteProtocolError as exc:
            self._answer(route, ErrorReply(ErrorCode.INVALID, str(exc)), received.id)
            return
        link.heard_at = time.monotonic()
        self._answer_inbound(route, link, received)

    def _inbound_link(self, route: bytes, host: str) -> _Inbound | None:
        link = self._state.inbound.get(route)
        if link is None:
            if len(self._state.inbound) >= MAX_INBOUND_LINKS:
                return None
            link = _Inbound(Handshake(Side.LISTENER), time.monotonic(), zmq_host(host))
            self._state.inbound[route] = link
        return link

    def _answer_inbound(self, route: bytes, link: _Inbound, received: Received) -> None:
        match received.message:
            case Hello() as hello:
                peer = peer_of_hello(hello, link.host, dialled=False)
                self._registry.up(peer)
                log.info("peer %s came in from %s", peer.peer_id, link.host)
                self._answer(route, _hello_ok(self._hello()), received.id)
                self._on_up(peer.peer_id)
            case Ping():
                self._answer(route, Pong(self._queued()), received.id)
            case GoAway(reason):
                log.info("peer %s leaves: %s", link.handshake.peer_id, reason)
                self._drop_inbound(route)
            case _:
                pass

    def _answer(self, route: bytes, message: Message, message_id: int) -> None:
        router = self._state.router
        if router is not None:
            send_now(router, [route, *encode_message(message, message_id)])

    def _drop_inbound(self, route: bytes) -> None:
        link = self._state.inbound.pop(route)
        peer_id = link.handshake.peer_id
        others = (other.handshake.peer_id for other in self._state.inbound.values())
        if peer_id is not None and peer_id not in others and str(peer_id) not in self._dialled_up():
            self._registry.down(peer_id)

    def _dialled_up(self) -> set[str]:
        outcomes = self._registry.outcomes()
        return {str(outcome.peer_id) for outcome in outcomes if outcome.state is DialState.UP}

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            limit = time.monotonic() - SILENCE_LIMIT_S
            for route in [route for route, link in self._state.inbound.items() if link.heard_at < limit]:
                self._drop_inbound(route)

    # --- links that this node opens

    async def _keep_dialled(self, address: Multiaddr) -> None:
        pause_s = REDIAL_FIRST_S
        while True:
            started = time.monotonic()
            try:
                await self._dial(address)
            except _RefusedError as exc:
                self._report(address, DialState.REFUSED, str(exc))
                pause_s = REDIAL_MAX_S
            except TransportError as exc:
                self._report(address, DialState.UNREACHABLE, str(exc))
            if time.monotonic() - started > 2 * SILENCE_LIMIT_S:
                pause_s = REDIAL_FIRST_S
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(2 * pause_s, REDIAL_MAX_S)

    async def _dial(self, address: Multiaddr) -> None:
        """One life of one link; ends by raising TransportError."""
        peer_id = address.peer_id
        assert peer_id is not None, "bootstrap addresses carry a PeerID"
        socket = self._context.socket(zmq.DEALER)
        try:
            self._secure.dial(socket, peer_id, MAX_CONTROL_FRAME_BYTES)
            _connect(socket, address)
            self._state.outbound[str(address)] = socket
            handshake = Handshake(Side.DIALLER, expected_peer=peer_id)
            peer = await self._say_hello(socket, handshake, address)
            self._registry.up(peer_of_hello(peer, zmq_host(address.host), dialled=True))
            self._report(address, DialState.UP, "", peer_id)
            self._on_up(peer_id)
            try:
                await self._keep_alive(socket, handshake)
            except RemoteProtocolError as exc:
                raise TransportError(f"peer {peer_id} broke the protocol: {exc}") from exc
            finally:
                if all(link.handshake.peer_id != peer_id for link in self._state.inbound.values()):
                    self._registry.down(peer_id)
        finally:
            self._state.outbound.pop(str(address), None)
            socket.close()

    async def _say_hello(self, socket: zmq.asyncio.Socket, handshake: Handshake, address: Multiaddr) -> Hello:
        curve_key = curve_public_key_of(public_key_of(str(address.peer_id)))
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                handshake.sending_hello()
                await socket.send_multipart(encode_message(self._hello(), 1))
                while handshake.state is not LinkState.OPEN:
                    received = decode_message(await socket.recv_multipart(), MAX_CONTROL_FRAME_BYTES)
                    handshake.receive(received.message, curve_key)
                    if isinstance(received.message, ErrorReply):
                        raise _RefusedError(f"the peer at {address} says no: {received.message.text}")
        except TimeoutError as exc:
            raise TransportError(
                f"nobody answered as {address} within {HELLO_TIMEOUT_S:g} s: check that the node runs there "
                "and that address and PeerID are those it printed"
            ) from exc
        except RemoteProtocolError as exc:
            raise _RefusedError(f"the peer at {address} {exc}") from exc
        assert handshake.peer is not None
        return handshake.peer

    async def _keep_alive(self, socket: zmq.asyncio.Socket, handshake: Handshake) -> None:
        curve_key = curve_public_key_of(handshake.peer.public_key) if handshake.peer else b""
        heard_at, ping_id, sent_at = time.monotonic(), 1, 0.0
        while True:
            ping_id, sent_at = ping_id + 1, time.monotonic()
            send_now(socket, encode_message(Ping(), ping_id))
            while (left_s := sent_at + PING_INTERVAL_S - time.monotonic()) > 0:
                if not await socket.poll(max(1, int(left_s * 1000))):
                    continue
                heard_at = time.monotonic()
                frames = await socket.recv_multipart()
                await asyncio.sleep(0)
                try:
                    received = decode_message(frames, MAX_CONTROL_FRAME_BYTES)
                except UnknownMessageError as exc:
                    answer = ErrorReply(ErrorCode.UNIMPLEMENTED, str(exc))
                    send_now(socket, encode_message(answer, exc.message_id))
                    continue
                handshake.receive(received.message, curve_key)
                self._heard(handshake, received, heard_at - sent_at if received.id == ping_id else None)
            if time.monotonic() - heard_at > SILENCE_LIMIT_S:
                raise TransportError(f"peer {handshake.peer_id} has been silent for {SILENCE_LIMIT_S:g} s")

    def _heard(self, handshake: Handshake, received: Received, rtt_s: float | None) -> None:
        match received.message:
            case Pong() if rtt_s is not None and handshake.peer_id is not None:
                self._registry.measured(handshake.peer_id, rtt_s)
            case GoAway(reason):
                raise TransportError(f"peer {handshake.peer_id} left: {reason}")
            case ErrorReply(ErrorCode.NO_SESSION, _):
                raise TransportError(f"peer {handshake.peer_id} was restarted")
            case _:
                pass

    def _report(self, address: Multiaddr, state: DialState, reason: str, peer_id: PeerId | None = None) -> None:
        if reason:
            log.warning("%s", reason)
        else:
            log.info("peer %s is up at %s", peer_id, address)
        self._registry.outcome(DialOutcome(str(address), state, reason, peer_id))

    # --- the end

    def _say_goodbye(self) -> None:
        farewell = GoAway(self._farewell)
        for route in list(self._state.inbound):
            self._answer(route, farewell, 0)
        for socket in self._state.outbound.values():
            send_now(socket, encode_message(farewell, 0))

    def _close(self) -> None:
        if self._state.router is not None:
            self._state.router.close(linger=200)


class _RefusedError(TransportError):
    """A peer that answered and will not have us: dialling again soon is of no use."""


def _hello_ok(hello: Hello) -> HelloOk:
    return HelloOk(**{name: getattr(hello, name) for name in Hello.__dataclass_fields__})


def new_nonce() -> bytes:
    """16 random bytes that make a hello unique."""
    return secrets.token_bytes(16)


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


def _connect(socket: zmq.asyncio.Socket, address: Multiaddr) -> None:
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
