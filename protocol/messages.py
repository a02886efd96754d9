"""One immutable class for each message, with the form of its body.

`parse` is strict about what it knows and silent about unknown keys, so that later versions can add some.
The CDDL in SPEC.md section 5 says the same and is checked against these classes by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, Self

from protocol import envelope as wire
from protocol.dialback import DialBack, DialBackResult
from protocol.envelope import Envelope, Frame, Tensor
from protocol.errors import RemoteProtocolError
from protocol.fields import take_integer, take_text
from protocol.hello import Hello, HelloOk, HostedModel
from protocol.limits import MAX_ERROR_CHARACTERS
from protocol.linear_messages import (
    ChunkBinding,
    Linear,
    LinearMessage,
    LinearResult,
    Role,
    TrustedLinear,
    TrustedResult,
)
from protocol.membership_messages import Gossip, MembershipMessage, PingReq, PingResult, Sync, SyncOk
from protocol.pairing_messages import (
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairingMessage,
    PairRefuse,
    PairReveal,
    Unpair,
)
from protocol.transfer_messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice, TransferMessage

__all__ = [
    "Attach",
    "Cancel",
    "ChunkBinding",
    "ErrorCode",
    "ErrorReply",
    "GoAway",
    "Hello",
    "HelloOk",
    "HostedModel",
    "Linear",
    "LinearResult",
    "Message",
    "MessageType",
    "Ping",
    "Pong",
    "Received",
    "Role",
    "TrustedLinear",
    "TrustedResult",
    "UnknownMessageError",
    "WorkKind",
    "decode_message",
    "encode_message",
]


class MessageType(IntEnum):
    """Numbers are never reused; 1000 and above are for experiments."""

    HELLO = 1
    HELLO_OK = 2
    PING = 3
    PONG = 4
    PING_REQ = 5
    GOSSIP = 6
    SYNC = 7
    SYNC_OK = 8
    PING_RESULT = 9
    DIAL_BACK = 10
    DIAL_BACK_RESULT = 11
    ERROR = 12
    CANCEL = 16
    GOAWAY = 20
    ATTACH = 21
    PAIR_ASK = 24
    PAIR_ANSWER = 25
    PAIR_REVEAL = 26
    PAIR_CONFIRM = 27
    PAIR_REFUSE = 28
    UNPAIR = 29
    LINEAR = 32
    LINEAR_RESULT = 33
    TRUSTED_LINEAR = 34
    TRUSTED_RESULT = 35
    BLOB_ASK = 40
    BLOB_OUTLINE = 41
    PIECE_ASK = 42
    PIECE_SLICE = 43
    CREDIT = 44


class ErrorCode(IntEnum):
    """gRPC's numbers where they fit."""

    CANCELLED = 1
    INVALID = 3
    NOT_FOUND = 5
    DENIED = 7
    EXHAUSTED = 8
    PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16
    NO_SESSION = 100


class WorkKind(IntEnum):
    """Kinds of work a node offers in its hello."""

    LINEAR = 1


@dataclass(frozen=True, slots=True)
class Ping:
    """Liveness; the answer is a Pong with the same message id."""

    def to_body(self) -> dict[int, Any]:
        return {}

    @classmethod
    def from_body(cls, _body: Mapping[int, Any]) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a Ping."""

    queued: int
    """Chunks waiting at the sender's worker."""

    def to_body(self) -> dict[int, Any]:
        return {0: self.queued}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, 1 << 31))


@dataclass(frozen=True, slots=True)
class GoAway:
    """The sender leaves: nothing new, please."""

    reason: str

    def to_body(self) -> dict[int, Any]:
        return {0: self.reason[:MAX_ERROR_CHARACTERS]}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_text(body, 0, MAX_ERROR_CHARACTERS))


@dataclass(frozen=True, slots=True)
class Attach:
    """First message on a data connection whose dialler offers to serve over it."""

    def to_body(self) -> dict[int, Any]:
        return {}

    @classmethod
    def from_body(cls, _body: Mapping[int, Any]) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class Cancel:
    """The request with this id is no longer wanted. One way, idempotent."""

    request_id: int

    def to_body(self) -> dict[int, Any]:
        return {0: self.request_id}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, wire.MAX_ID))


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Answer to the message of the same id: a code and one sentence."""

    code: int
    text: str

    def to_body(self) -> dict[int, Any]:
        return {0: int(self.code), 1: self.text[:MAX_ERROR_CHARACTERS]}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, 65535), take_text(body, 1, MAX_ERROR_CHARACTERS))


class PlainMessage(Protocol):
    """A message that is a body and no buffer."""

    def to_body(self) -> dict[int, Any]: ...

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Message: ...


LinkMessage = Hello | HelloOk | Ping | Pong | GoAway | Attach | Cancel | ErrorReply
Message = (
    LinkMessage | MembershipMessage | PairingMessage | DialBack | DialBackResult | LinearMessage | TransferMessage
)


@dataclass(frozen=True, slots=True)
class Received:
    """A message with the id it came under."""

    id: int
    message: Message = field()


def encode_message(message: Message, message_id: int) -> list[Frame]:
    """Frames of one message."""
    kind, body, buffers = _to_body(message)
    return wire.encode_envelope(Envelope(kind, message_id, body, buffers))


def decode_message(frames: Sequence[Frame], max_header_bytes: int) -> Received:
    """Read one message; raises RemoteProtocolError, whose `UnknownMessageError` form may be answered."""
    received = wire.decode_envelope(frames, max_header_bytes)
    reader = _READERS.get(received.type)
    if reader is not None:
        return Received(received.id, reader(received.body, received.buffers))
    try:
        kind = FAMILIES[MessageType(received.type)]
    except (ValueError, KeyError):
        raise UnknownMessageError(received.type, received.id) from None
    return Received(received.id, kind.from_body(received.body))


class UnknownMessageError(RemoteProtocolError):
    """A well-formed message of a type this node does not know: answered with UNIMPLEMENTED."""

    def __init__(self, message_type: int, message_id: int) -> None:
        super().__init__(f"message type {message_type} is not known here")
        self.message_id = message_id


def _to_body(message: Message) -> tuple[MessageType, dict[int, Any], tuple[Tensor, ...]]:
    match message:
        case Linear() | LinearResult() | TrustedLinear() | TrustedResult() | BlobOutline() | PieceSlice():
            return _BUFFERED[type(message)], message.to_body(), message.to_buffers()
        case _:
            return _TYPES[type(message)], message.to_body(), ()


_READERS: dict[int, Callable[[dict[int, Any], tuple[Tensor, ...]], Message]] = {
    MessageType.LINEAR: Linear.from_parts,
    MessageType.LINEAR_RESULT: LinearResult.from_parts,
    MessageType.TRUSTED_LINEAR: TrustedLinear.from_parts,
    MessageType.TRUSTED_RESULT: TrustedResult.from_parts,
    MessageType.BLOB_OUTLINE: BlobOutline.from_parts,
    MessageType.PIECE_SLICE: PieceSlice.from_parts,
}
_BUFFERED: dict[type[LinearMessage | TransferMessage], MessageType] = {
    Linear: MessageType.LINEAR,
    LinearResult: MessageType.LINEAR_RESULT,
    TrustedLinear: MessageType.TRUSTED_LINEAR,
    TrustedResult: MessageType.TRUSTED_RESULT,
    BlobOutline: MessageType.BLOB_OUTLINE,
    PieceSlice: MessageType.PIECE_SLICE,
}

FAMILIES: dict[MessageType, type[PlainMessage]] = {
    MessageType.HELLO: Hello,
    MessageType.HELLO_OK: HelloOk,
    MessageType.PING: Ping,
    MessageType.PONG: Pong,
    MessageType.PING_REQ: PingReq,
    MessageType.GOSSIP: Gossip,
    MessageType.SYNC: Sync,
    MessageType.SYNC_OK: SyncOk,
    MessageType.PING_RESULT: PingResult,
    MessageType.DIAL_BACK: DialBack,
    MessageType.DIAL_BACK_RESULT: DialBackResult,
    MessageType.ERROR: ErrorReply,
    MessageType.CANCEL: Cancel,
    MessageType.GOAWAY: GoAway,
    MessageType.ATTACH: Attach,
    MessageType.PAIR_ASK: PairAsk,
    MessageType.PAIR_ANSWER: PairAnswer,
    MessageType.PAIR_REVEAL: PairReveal,
    MessageType.PAIR_CONFIRM: PairConfirm,
    MessageType.PAIR_REFUSE: PairRefuse,
    MessageType.UNPAIR: Unpair,
    MessageType.BLOB_ASK: BlobAsk,
    MessageType.PIECE_ASK: PieceAsk,
    MessageType.CREDIT: Credit,
}
"""Messages that are a body and no buffer; each knows its own form."""

_TYPES: dict[type[PlainMessage], MessageType] = {kind: number for number, kind in FAMILIES.items()}
