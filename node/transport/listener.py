"""Links that others open: the node's one ROUTER, and what is known of whoever sends to it."""

from __future__ import annotations

import asyncio
import logging
import time

import zmq
import zmq.asyncio
from msgspec import Struct
from msgspec.structs import replace

from node.transport.callers import Caller, curve_key_of_frame
from node.transport.conduct import Conduct
from node.transport.link import LinkContext
from node.transport.log_limit import LogLimit
from node.transport.registry import peer_of_hello
from node.transport.sockets import send_now
from protocol.codec import Received, UnknownMessageError, decode_message, encode_message
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.limits import MAX_CONTROL_FRAME_BYTES
from protocol.link.handshake import Handshake, HandshakeError, LinkState, Side
from protocol.link.hello import Hello
from protocol.link.messages import GoAway, Pong
from protocol.message import ErrorCode, ErrorReply, Message, Ping
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

MAX_LINKS = 256
MAX_LINKS_A_KEY = 4
"""Most links of one CURVE key. One more takes the place of the key's oldest, so that no peer can lock others out."""
MAX_LINKS_A_HOST = 128
RTT_INTERVAL_S = 3.0


class _Link(Struct, eq=False):
    """A link that a peer opened."""

    listener: Listener
    route: bytes
    handshake: Handshake
    curve_key: bytes
    heard_at: float
    host: str
    dialled: bool = False
    pinged_at: float = 0.0
    ping_id: int = 0

    @property
    def peer_id(self) -> PeerId:
        peer_id = self.handshake.peer_id
        assert peer_id is not None, "the hello was accepted"
        return peer_id

    def send(self, message: Message, message_id: int) -> bool:
        return self.listener.send(self.route, message, message_id)

    def close(self, reason: str) -> None:
        self.send(GoAway(reason), 0)
        self.listener.drop(self.route)


class Listener:
    """Answers whoever dials this node. Lives in the control plane's loop."""

    def __init__(self, context: LinkContext) -> None:
        self._context = context
        self._links: dict[bytes, _Link] = {}
        self._complaints = LogLimit(log)
        self._router = context.sockets.socket(zmq.ROUTER)
        self._routes = context.secure.gate.routes()
        self._conduct = Conduct()

    def bind(self, listen: Multiaddr) -> Multiaddr:
        """Listen; the address with the port really bound. Raises ConfigError."""
        secure = self._context.secure
        bound = secure.listen(self._router, "control", listen, MAX_CONTROL_FRAME_BYTES)
        return bound.with_peer(secure.identity.peer_id)

    @property
    def has_links(self) -> bool:
        return bool(self._links)

    async def serve(self) -> None:
        """Read for ever."""
        while True:
            route, *frames = await self._router.recv_multipart(copy=False)
            try:
                self._take(bytes(route.buffer), frames)
            except Exception:  # one message must not end the links of everybody else
                self._complaints.warning("a message could not be handled", exc_info=True)
            await asyncio.sleep(0)  # a receive that is ready does not yield: whoever floods would have the loop alone

    def _take(self, route: bytes, frames: list[zmq.Frame]) -> None:
        """Handle a message and charge its time to its sender: in a flood, the messages of others are still heard."""
        caller = self._routes.took(route, frames) if frames else None
        if caller is None:
            return
        sender = curve_key_of_frame(frames[-1])
        if not self._conduct.may_send(sender, time.monotonic()):
            return
        started = time.thread_time()
        self._handle(route, caller, frames)
        self._conduct.spent(sender, time.thread_time() - started, time.monotonic())

    async def expire(self) -> None:
        """Forget links that have fallen silent."""
        while True:
            await asyncio.sleep(self._context.pace.ping_interval_s)
            limit = time.monotonic() - self._context.pace.silence_limit_s
            for route in [route for route, link in self._links.items() if link.heard_at < limit]:
                self.drop(route)
            self._ping_those_due()

    def _ping_those_due(self) -> None:
        """The dialler keeps a link alive; this side pings to know the way's length too."""
        now = time.monotonic()
        for link in self._links.values():
            if link.handshake.state is LinkState.OPEN and now - link.pinged_at >= RTT_INTERVAL_S:
                link.ping_id, link.pinged_at = link.ping_id + 1, now
                link.send(Ping(), link.ping_id)

    def say_goodbye(self, farewell: GoAway) -> None:
        """Tell everybody that this node leaves."""
        for route in list(self._links):
            self.send(route, farewell, 0)

    def close(self) -> None:
        """Close the ROUTER; the last messages have a moment to leave."""
        self._router.close(linger=200)

    def _handle(self, route: bytes, caller: Caller, frames: list[zmq.Frame]) -> None:
        link = self._link(route, caller, frames[-1])
        if link is None:
            return
        try:
            received = decode_message([frame.buffer for frame in frames], MAX_CONTROL_FRAME_BYTES)
        except UnknownMessageError as exc:
            self.send(route, ErrorReply(ErrorCode.UNIMPLEMENTED, str(exc)), exc.message_id)
            return
        except RemoteProtocolError as exc:
            self._complaints.warning("a frame from %s was dropped: %s", link.host, exc)
            peer_id = link.handshake.peer_id
            if self._conduct.malformed(link.curve_key, time.monotonic()) and peer_id is not None:
                self._context.on_fault(peer_id, "it sent too many messages against the format")
            return
        try:
            link.handshake.receive(received.message, link.curve_key)
        except RemoteProtocolError as exc:
            self._complaints.warning("%s was refused: %s", link.host, exc)
            code = exc.code if isinstance(exc, HandshakeError) else ErrorCode.INVALID
            self.send(route, ErrorReply(code, str(exc)), received.id)
            return
        link.heard_at = time.monotonic()
        self._heard(route, link, received)

    def _link(self, route: bytes, caller: Caller, frame: zmq.Frame) -> _Link | None:
        link = self._links.get(route)
        if link is not None:
            return link
        context, curve_key, host = self._context, curve_key_of_frame(frame), caller.host
        of_key = [known for known, other in self._links.items() if other.curve_key == curve_key]
        if len(of_key) >= MAX_LINKS_A_KEY:
            self.drop(min(of_key, key=lambda known: self._links[known].heard_at))
        if not self._has_room(host):
            return None
        now, handshake = time.monotonic(), context.new_handshake(Side.LISTENER)
        link = self._links[route] = _Link(self, route, handshake, curve_key, now, host, pinged_at=now)
        return link

    def _has_room(self, host: str) -> bool:
        """Whether one more link fits; strangers, who have said no hello, make way for whoever comes next."""
        of_host = [route for route, link in self._links.items() if link.host == host]
        rivals = of_host if len(of_host) >= MAX_LINKS_A_HOST else list(self._links)
        if len(rivals) < (MAX_LINKS_A_HOST if rivals is of_host else MAX_LINKS):
            return True
        strangers = [route for route in rivals if self._links[route].handshake.state is not LinkState.OPEN]
        if strangers:
            self.drop(min(strangers, key=lambda route: self._links[route].heard_at))
        return bool(strangers)

    def _heard(self, route: bytes, link: _Link, received: Received) -> None:
        context = self._context
        match received.message:
            case Hello() as hello:
                peer = peer_of_hello(hello, link.host, dialled=False)
                if peer.peer_id == context.secure.identity.peer_id:
                    self._complaints.warning(
                        "another device at %s has this node's identity, or it is this one", link.host
                    )
                    link.close("this node has the same identity")
                    return
                self.send(route, link.handshake.answer(replace(context.hello(), observed=link.host)), received.id)
                if not context.links.up(link, peer):
                    link.close("another identity of this key is here")
                    return
                log.info("peer %s came in from %s", peer.peer_id, link.host)
                context.on_up(peer.peer_id)
            case Ping():
                self.send(route, Pong(context.queued()), received.id)
                context.links.received(link, received)
            case GoAway(reason):
                log.info("peer %s leaves: %s", link.handshake.peer_id, reason)
                if link.handshake.peer_id is not None:
                    context.links.goodbye(link)
                self.drop(route)
            case Pong(queued) if received.id == link.ping_id:
                context.registry.measured(link.peer_id, time.monotonic() - link.pinged_at, queued)
                context.links.received(link, received)
            case _:
                context.links.received(link, received)

    def send(self, route: bytes, message: Message, message_id: int) -> bool:
        """Send to one connection now or not at all."""
        return send_now(self._router, [route, *encode_message(message, message_id)])

    def drop(self, route: bytes) -> None:
        """Forget a link."""
        link = self._links.pop(route, None)
        if link is not None and link.handshake.peer_id is not None:
            self._context.links.down(link)
