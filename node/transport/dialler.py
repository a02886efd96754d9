"""A link that this node opens, and opens again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
import random
import time

import zmq
import zmq.asyncio
from msgspec import Struct
from msgspec.structs import replace

from node.errors import PeerRefusedError, TransportError
from node.transport.gate import zmq_host
from node.transport.link import LinkContext
from node.transport.names import resolve
from node.transport.registry import DialOutcome, DialState, peer_of_hello
from node.transport.sockets import connect_socket, send_now
from protocol.codec import Received, UnknownMessageError, decode_message, encode_message
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, curve_public_key_of, public_key_of
from protocol.limits import MAX_CONTROL_FRAME_BYTES
from protocol.link.handshake import Handshake, LinkState, Side
from protocol.link.hello import Hello
from protocol.link.messages import GoAway, Pong
from protocol.message import ErrorCode, ErrorReply, Message, Ping
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

DELIVERED_ID = 2
"""Id of a single message; that of a hello is 1."""
FAREWELL_MS = 200
"""Time for the goodbye after a single message to leave."""


class _Link(Struct, eq=False):
    """A link that this node opened."""

    peer_id: PeerId
    socket: zmq.asyncio.Socket
    monitor: zmq.asyncio.Socket
    """Says when the connection breaks."""
    host: str
    dialled: bool = True
    closing: str | None = None

    def send(self, message: Message, message_id: int) -> bool:
        return not self.socket.closed and send_now(self.socket, encode_message(message, message_id))

    def close(self, reason: str) -> None:
        self.send(GoAway(reason), 0)
        self.closing = reason


class Dialler:
    """Keeps one address dialled. Lives in the control plane's loop."""

    def __init__(self, context: LinkContext, address: Multiaddr, users_own: bool = False) -> None:
        """`users_own`: this address comes from the user, not from a peer."""
        assert address.peer_id is not None, "addresses to dial carry a PeerID"
        self._context = context
        self._address = address
        self._users_own = users_own
        self._peer_id = address.peer_id
        self._socket: zmq.asyncio.Socket | None = None
        self._said = DialState.CONNECTING
        self.was_up = False
        """Whether it ever had a link."""

    def say_goodbye(self, farewell: GoAway) -> None:
        """Tell the peer that this node leaves."""
        if self._socket is not None:
            send_now(self._socket, encode_message(farewell, 0))

    async def keep(self) -> None:
        """Dial for ever: again after every end, later each time."""
        pace = self._context.pace
        pause_s = pace.redial_first_s
        while True:
            started = time.monotonic()
            try:
                await self.once()
            except _RefusedError as exc:
                self._report(DialState.REFUSED, str(exc))
                pause_s = pace.redial_max_s
            except TransportError as exc:
                self._report(DialState.UNREACHABLE, str(exc))
            if time.monotonic() - started > 2 * pace.silence_limit_s:
                pause_s = pace.redial_first_s
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(2 * pause_s, pace.redial_max_s)

    async def once(self) -> None:
        """One life of one link; ends by raising TransportError."""
        context, peer_id = self._context, self._peer_id
        address = await self._knock()
        self._socket = socket = self._new_socket()
        monitor: zmq.asyncio.Socket | None = None
        try:
            context.secure.dial(socket, peer_id, MAX_CONTROL_FRAME_BYTES)
            monitor = self._monitor(socket)
            connect_socket(socket, address)
            handshake = context.new_handshake(Side.DIALLER, peer_id)
            peer = await self._say_hello(socket, handshake, zmq_host(address.host))
            link = _Link(peer_id, socket, monitor, zmq_host(address.host))
            if not context.links.up(link, peer_of_hello(peer, zmq_host(address.host), dialled=True)):
                raise _RefusedError(f"the peer at {address} is here under another identity of its key")
            self.was_up = True
            self._report(DialState.UP, "", peer_id)
            context.on_up(peer_id)
            try:
                await self._keep_alive(link, handshake)
            except RemoteProtocolError as exc:
                raise TransportError(f"peer {peer_id} broke the protocol: {exc}") from exc
            finally:
                context.links.down(link)
        finally:
            self._socket = None
            socket.disable_monitor()
            if monitor is not None:
                monitor.close(linger=0)
            socket.close()

    async def _knock(self) -> Multiaddr:
        """Be let in at the address; returns the address with an IP address as its host."""
        context = self._context
        address = await resolve(self._address, context.pace.hello_timeout_s, self._users_own)
        try:
            await asyncio.wrap_future(context.secure.knocks.knock(self._peer_id, address.host, address.port))
        except PeerRefusedError as exc:
            raise _RefusedError(f"the peer at {self._address} {exc}") from exc
        except TransportError as exc:
            raise TransportError(
                f"nobody answered as {self._address} ({exc}): check that the node runs there and that address and "
                "PeerID are those it printed"
            ) from exc
        return address

    def _new_socket(self) -> zmq.asyncio.Socket:
        """Raises TransportError where this process has no room for another: that must end nothing but this try."""
        try:
            return self._context.sockets.socket(zmq.DEALER)
        except zmq.ZMQError as exc:
            raise TransportError(f"cannot dial {self._address}: {exc.strerror}; too many links are open") from exc

    def _monitor(self, socket: zmq.asyncio.Socket) -> zmq.asyncio.Socket:
        """Tells when the connection of a socket breaks. Raises TransportError as `_new_socket` does."""
        try:
            return socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        except zmq.ZMQError as exc:
            raise TransportError(f"cannot dial {self._address}: {exc.strerror}; too many links are open") from exc

    async def deliver(self, message: Message) -> None:
        """Dial, send one message and leave; this makes no link. Raises TransportError where nobody read the
        message."""
        context, peer_id = self._context, self._peer_id
        address = await self._knock()
        socket = self._new_socket()
        try:
            context.secure.dial(socket, peer_id, MAX_CONTROL_FRAME_BYTES)
            connect_socket(socket, address)
            await self._say_hello(socket, context.new_handshake(Side.DIALLER, peer_id), zmq_host(address.host))
            send_now(socket, encode_message(message, DELIVERED_ID))
            send_now(socket, encode_message(Ping(), DELIVERED_ID + 1))
            async with asyncio.timeout(context.pace.hello_timeout_s):
                # The answer to the ping says that the message before it was read.
                while decode_message(await socket.recv_multipart(), MAX_CONTROL_FRAME_BYTES).id != DELIVERED_ID + 1:
                    pass
        except RemoteProtocolError as exc:
            raise TransportError(f"peer {peer_id} broke the protocol: {exc}") from exc
        except TimeoutError as exc:
            raise TransportError(f"nobody answered any more as {self._address}") from exc
        finally:
            send_now(socket, encode_message(GoAway("said what there was to say"), 0))
            socket.close(linger=FAREWELL_MS)

    async def _say_hello(self, socket: zmq.asyncio.Socket, handshake: Handshake, host: str) -> Hello:
        """The peer's hello; `host` is where it was dialled."""
        address, pace = self._address, self._context.pace
        curve_key = curve_public_key_of(public_key_of(self._peer_id))
        try:
            async with asyncio.timeout(pace.hello_timeout_s):
                hello = handshake.say_hello(replace(self._context.hello(), observed=host))
                await socket.send_multipart(encode_message(hello, 1))
                while handshake.state is not LinkState.OPEN:
                    received = decode_message(await socket.recv_multipart(), MAX_CONTROL_FRAME_BYTES)
                    handshake.receive(received.message, curve_key)
                    if isinstance(received.message, ErrorReply):
                        raise _RefusedError(f"the peer at {address} says no: {received.message.text}")
        except TimeoutError as exc:
            raise TransportError(
                f"nobody answered as {address} within {pace.hello_timeout_s:g} s: check that the node runs there "
                "and that address and PeerID are those it printed"
            ) from exc
        except RemoteProtocolError as exc:
            raise _RefusedError(f"the peer at {address} {exc}") from exc
        assert handshake.peer is not None
        return handshake.peer

    async def _keep_alive(self, link: _Link, handshake: Handshake) -> None:
        socket = link.socket
        curve_key = curve_public_key_of(handshake.peer.public_key) if handshake.peer else b""
        pace, heard_at, ping_id, sent_at = self._context.pace, time.monotonic(), 1, 0.0
        poller = zmq.asyncio.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(link.monitor, zmq.POLLIN)
        while True:
            ping_id, sent_at = ping_id + 1, time.monotonic()
            send_now(socket, encode_message(Ping(), ping_id))
            while (left_s := sent_at + self._context.ping_interval_s - time.monotonic()) > 0:
                if link.closing is not None:
                    raise TransportError(f"the link to {link.peer_id} was closed: {link.closing}")
                ready = dict(await poller.poll(max(1, int(left_s * 1000))))
                if socket not in ready:
                    if ready:  # and nothing is left to read
                        raise TransportError(f"the connection to {link.peer_id} broke")
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
                self._heard(link, received, heard_at - sent_at if received.id == ping_id else None)
            if time.monotonic() - heard_at > pace.silence_limit_s:
                raise TransportError(f"peer {handshake.peer_id} has been silent for {pace.silence_limit_s:g} s")

    def _heard(self, link: _Link, received: Received, rtt_s: float | None) -> None:
        match received.message:
            case GoAway(reason):
                self._context.links.goodbye(link)
                raise TransportError(f"peer {link.peer_id} left: {reason}")
            case ErrorReply(ErrorCode.NO_SESSION, _):
                raise TransportError(f"peer {link.peer_id} was restarted")
            case Ping():
                link.send(Pong(self._context.queued()), received.id)
            case Pong(queued) if rtt_s is not None:
                self._context.registry.measured(link.peer_id, rtt_s, queued)
            case _:
                pass
        self._context.links.received(link, received)

    def _report(self, state: DialState, reason: str, peer_id: PeerId | None = None) -> None:
        """Tell the state of the address, once for each change."""
        if state is not self._said:
            log.info("%s", reason or f"peer {peer_id} is up at {self._address}")
        self._said = state
        self._context.registry.outcome(DialOutcome(str(self._address), state, reason, peer_id))


class _RefusedError(TransportError):
    """A peer that answered and refuses us: dialling again soon is of no use."""
