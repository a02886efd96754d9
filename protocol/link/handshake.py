"""What may follow what on a link, as one table, and the checks that turn a hello into a known peer.

The dialler sends HELLO, the listener answers HELLO_OK or an error; nothing else counts before. CURVE has proved
that the other side holds the secret of some X25519 key; a hello is believed only if its Ed25519 key maps to it, and
in a private swarm only with a proof that its sender knows the swarm's key.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import PeerId, curve_public_key_of, peer_id_of, public_key_of
from protocol.limits import PROTOCOL_VERSION
from protocol.link.admission import SwarmKey
from protocol.link.hello import Hello, HelloOk, hello_ok
from protocol.link.messages import GoAway
from protocol.message import ErrorCode, ErrorReply, Message


class Side(Enum):
    """Who opened the link."""

    DIALLER = "dialler"
    LISTENER = "listener"


class LinkState(Enum):
    """Life of a link, seen from one side."""

    NEW = "new"
    HELLO_SENT = "hello sent"
    OPEN = "open"
    CLOSED = "closed"


class LinkEvent(Enum):
    """What moves a link."""

    SEND_HELLO = "send HELLO"
    RECEIVE_HELLO = "receive HELLO"
    RECEIVE_HELLO_OK = "receive HELLO_OK"
    RECEIVE_ERROR = "receive ERROR"
    RECEIVE_GOAWAY = "receive GOAWAY"
    RECEIVE_OTHER = "receive anything else"
    LOST = "connection lost"


# SPEC.md section 6. What is not in the table is refused: before OPEN with NO_SESSION. A dialler whose listener
# restarted is answered NO_SESSION and says hello again; a listener accepts a second hello as a fresh start.
TRANSITIONS: dict[Side, dict[LinkState, dict[LinkEvent, LinkState]]] = {
    Side.DIALLER: {
        LinkState.NEW: {LinkEvent.SEND_HELLO: LinkState.HELLO_SENT, LinkEvent.LOST: LinkState.CLOSED},
        LinkState.HELLO_SENT: {
            LinkEvent.RECEIVE_HELLO_OK: LinkState.OPEN,
            LinkEvent.RECEIVE_ERROR: LinkState.CLOSED,
            LinkEvent.LOST: LinkState.CLOSED,
        },
        LinkState.OPEN: {
            LinkEvent.SEND_HELLO: LinkState.HELLO_SENT,
            LinkEvent.RECEIVE_OTHER: LinkState.OPEN,
            LinkEvent.RECEIVE_ERROR: LinkState.OPEN,
            LinkEvent.RECEIVE_GOAWAY: LinkState.CLOSED,
            LinkEvent.LOST: LinkState.CLOSED,
        },
        LinkState.CLOSED: {LinkEvent.SEND_HELLO: LinkState.HELLO_SENT},
    },
    Side.LISTENER: {
        LinkState.NEW: {LinkEvent.RECEIVE_HELLO: LinkState.OPEN, LinkEvent.LOST: LinkState.CLOSED},
        LinkState.OPEN: {
            LinkEvent.RECEIVE_HELLO: LinkState.OPEN,
            LinkEvent.RECEIVE_OTHER: LinkState.OPEN,
            LinkEvent.RECEIVE_ERROR: LinkState.OPEN,
            LinkEvent.RECEIVE_GOAWAY: LinkState.CLOSED,
            LinkEvent.LOST: LinkState.CLOSED,
        },
        LinkState.CLOSED: {LinkEvent.RECEIVE_HELLO: LinkState.OPEN},
    },
}


def event_of(message: Message) -> LinkEvent:
    """The event that `message` causes when it is received."""
    match message:
        case HelloOk():
            return LinkEvent.RECEIVE_HELLO_OK
        case Hello():
            return LinkEvent.RECEIVE_HELLO
        case ErrorReply():
            return LinkEvent.RECEIVE_ERROR
        case GoAway():
            return LinkEvent.RECEIVE_GOAWAY
        case _:
            return LinkEvent.RECEIVE_OTHER


NEXT_STEP = "join with an invitation of a member (`kekahyde-node invite`, then `join`)"


class Handshake(Struct):
    """One side of one link. Feed it what was sent and what came; it says whether that was legal."""

    side: Side
    me: bytes
    """This node's public key."""
    swarm: SwarmKey | None = None
    """None: the swarm is open."""
    expected_peer: PeerId | None = None
    """The PeerID that was dialled."""
    refusal: Callable[[PeerId], str | None] = lambda peer_id: None
    """Why this node does not want a peer; None where it does."""
    state: LinkState = LinkState.NEW
    peer: Hello | None = None
    sent: Hello | None = None
    """The hello that was sent last."""

    @property
    def peer_id(self) -> PeerId | None:
        return None if self.peer is None else peer_id_of(self.peer.public_key)

    def say_hello(self, hello: Hello) -> Hello:
        """The dialler sends the HELLO that this returns: `hello` with the proof of membership."""
        following = TRANSITIONS[self.side][self.state].get(LinkEvent.SEND_HELLO)
        if following is None:
            raise LocalProtocolError(f"a {self.side.value} cannot say hello when the link is {self.state.value}")
        assert self.expected_peer is not None, "who is dialled is known"
        self.state = following
        self.sent = hello if self.swarm is None else self.swarm.prove(hello, public_key_of(self.expected_peer))
        return self.sent

    def answer(self, hello: Hello) -> HelloOk:
        """The listener's answer to a hello that it accepted: its own `hello`, as a HELLO_OK with its proof."""
        assert self.peer is not None, "a hello was accepted"
        answer = hello_ok(hello)
        return answer if self.swarm is None else self.swarm.prove_answer(self.peer, answer)

    def receive(self, message: Message, curve_key: bytes) -> None:
        """Check and apply one received message; `curve_key` is what CURVE proved (32 raw bytes).

        Raises HandshakeError, whose code goes back to the sender; the state is then unchanged.
        """
        following = TRANSITIONS[self.side][self.state].get(event_of(message))
        if following is None:
            raise HandshakeError(ErrorCode.NO_SESSION, f"{type(message).__name__} before the handshake")
        if isinstance(message, Hello):
            self._check_hello(message, curve_key)
            self.peer = message
        self.state = following

    def _check_hello(self, hello: Hello, curve_key: bytes) -> None:
        if PROTOCOL_VERSION not in hello.versions:
            spoken = ", ".join(f"kek/{version}" for version in hello.versions[:4]) or "nothing"
            raise HandshakeError(
                ErrorCode.PRECONDITION,
                f"speaks {spoken}, this node speaks kek/{PROTOCOL_VERSION}: update the older of the two",
            )
        if curve_public_key_of(hello.public_key) != curve_key:
            raise HandshakeError(ErrorCode.UNAUTHENTICATED, "the hello's key is not the key of the connection")
        if self.peer is not None and hello.public_key != self.peer.public_key:
            raise HandshakeError(ErrorCode.UNAUTHENTICATED, "another identity on the same link")
        if self.expected_peer is not None and peer_id_of(hello.public_key) != self.expected_peer:
            raise HandshakeError(ErrorCode.UNAUTHENTICATED, f"is not {self.expected_peer}")
        self._check_admission(hello)
        refusal = self.refusal(peer_id_of(hello.public_key))
        if refusal is not None:
            raise HandshakeError(ErrorCode.DENIED, f"is not wanted here ({refusal})")

    def _check_admission(self, hello: Hello) -> None:
        """Raises HandshakeError; its text goes to a stranger, so it says why and does not name this swarm."""
        if self.swarm is None:
            if hello.proof is not None:
                raise HandshakeError(ErrorCode.DENIED, "is a member of a private swarm, and this swarm is open")
            return
        if hello.proof is None:
            raise HandshakeError(ErrorCode.DENIED, f"has no key for this swarm: {NEXT_STEP}")
        if isinstance(hello, HelloOk):
            accepted = self.sent is not None and self.swarm.accepts_answer(self.sent, hello)
        else:
            accepted = self.swarm.accepts(hello, self.me)
        if not accepted:
            raise HandshakeError(ErrorCode.DENIED, f"has the key of another swarm: {NEXT_STEP}")


class HandshakeError(RemoteProtocolError):
    """A hello that is not accepted, or a message out of turn."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
