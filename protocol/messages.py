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
from protocol.envelope import DType, Envelope, Frame, Tensor
from protocol.errors import RemoteProtocolError
from protocol.field import Elements
from protocol.fields import take_bytes, take_integer, take_list, take_text
from protocol.hello import Hello, HelloOk, HostedModel
from protocol.limits import (
    HASH_BYTES,
    MAX_CHUNK_ROWS,
    MAX_ERROR_CHARACTERS,
    MAX_UNIT_INPUTS,
    MAX_UNIT_OUTPUTS,
    SEED_BYTES,
    SESSION_BYTES,
    TILE_OUTPUTS,
)
from protocol.membership_messages import Gossip, MembershipMessage, PingReq, PingResult, Sync, SyncOk

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
    "UnknownMessageError",
    "WorkKind",
    "decode_message",
    "encode_message",
]

MAX_TILES = MAX_UNIT_OUTPUTS // TILE_OUTPUTS


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
    LINEAR = 32
    LINEAR_RESULT = 33


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


class Role(IntEnum):
    """What a peer gets of a row: the seed of its pad, or the row minus its pad."""

    PAD = 1
    SHARE = 2


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


@dataclass(frozen=True, slots=True)
class ChunkBinding:
    """What a result is bound to; a result of anything else does not count."""

    session: bytes
    nonce: int
    model_id: bytes
    unit: bytes
    """SHA-256 of the unit's file."""
    role: Role
    row_start: int
    row_end: int
    tile_start: int
    tile_end: int

    @property
    def num_rows(self) -> int:
        return self.row_end - self.row_start

    def as_list(self) -> list[Any]:
        """The binding as it is hashed with the result (SPEC.md section 8)."""
        return [
            self.session,
            self.nonce,
            self.model_id,
            self.unit,
            int(self.role),
            self.row_start,
            self.row_end,
            self.tile_start,
            self.tile_end,
        ]


@dataclass(frozen=True, slots=True)
class Linear:
    """Request: multiply rows by a unit. A seed stands for the rows in role PAD."""

    binding: ChunkBinding
    seed: bytes | None = None
    rows: Elements | None = None
    """`[num_rows, K]` u32 in role SHARE."""


@dataclass(frozen=True, slots=True)
class LinearResult:
    """Answer to a Linear: `[num_rows, outputs]` u32, and the digest that binds it to the request."""

    digest: bytes
    compute_us: int
    rows: Elements


class PlainMessage(Protocol):
    """A message that is a body and no buffer."""

    def to_body(self) -> dict[int, Any]: ...

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Message: ...


LinkMessage = Hello | HelloOk | Ping | Pong | GoAway | Attach | Cancel | ErrorReply
Message = LinkMessage | MembershipMessage | DialBack | DialBackResult | Linear | LinearResult


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
        case Linear(binding, seed, rows):
            body: dict[int, Any] = {0: binding.as_list()}
            if seed is not None:
                body[1] = seed
            buffers = () if rows is None else (Tensor(DType.U32, rows),)
            return MessageType.LINEAR, body, buffers
        case LinearResult(digest, compute_us, rows):
            return MessageType.LINEAR_RESULT, {0: digest, 1: compute_us}, (Tensor(DType.U32, rows),)
        case _:
            return _TYPES[type(message)], message.to_body(), ()


def _read_linear(body: dict[int, Any], buffers: tuple[Tensor, ...]) -> Linear:
    binding = _read_binding(take_list(body, 0, 9))
    if binding.role is Role.PAD:
        if buffers:
            raise RemoteProtocolError("a pad request carries a seed and no buffer")
        return Linear(binding, seed=take_bytes(body, 1, SEED_BYTES))
    if len(buffers) != 1 or buffers[0].dtype is not DType.U32 or buffers[0].data.ndim != 2 or 1 in body:
        raise RemoteProtocolError("a share request carries one u32 buffer of two dimensions and no seed")
    rows = buffers[0].data
    if rows.shape[0] != binding.num_rows or rows.shape[1] > MAX_UNIT_INPUTS:
        raise RemoteProtocolError("the rows of a share are not those of its binding")
    return Linear(binding, rows=rows)


def _read_binding(values: list[Any]) -> ChunkBinding:
    if len(values) != 9:
        raise RemoteProtocolError("a binding has nine entries")
    fields = dict(enumerate(values))
    row_start = take_integer(fields, 5, 0, MAX_CHUNK_ROWS)
    tile_start = take_integer(fields, 7, 0, MAX_TILES)
    return ChunkBinding(
        session=take_bytes(fields, 0, SESSION_BYTES),
        nonce=take_integer(fields, 1, 0, wire.MAX_ID),
        model_id=take_bytes(fields, 2, HASH_BYTES),
        unit=take_bytes(fields, 3, HASH_BYTES),
        role=Role(take_integer(fields, 4, Role.PAD, Role.SHARE)),
        row_start=row_start,
        row_end=take_integer(fields, 6, row_start + 1, MAX_CHUNK_ROWS),
        tile_start=tile_start,
        tile_end=take_integer(fields, 8, tile_start + 1, MAX_TILES),
    )


def _read_linear_result(body: dict[int, Any], buffers: tuple[Tensor, ...]) -> LinearResult:
    if len(buffers) != 1 or buffers[0].dtype is not DType.U32 or buffers[0].data.ndim != 2:
        raise RemoteProtocolError("a result carries one u32 buffer of two dimensions")
    return LinearResult(take_bytes(body, 0, HASH_BYTES), take_integer(body, 1, 0, 1 << 62), buffers[0].data)


_READERS: dict[int, Callable[[dict[int, Any], tuple[Tensor, ...]], Message]] = {
    MessageType.LINEAR: _read_linear,
    MessageType.LINEAR_RESULT: _read_linear_result,
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
}
"""Messages that are a body and no buffer; each knows its own form."""

_TYPES: dict[type[PlainMessage], MessageType] = {kind: number for number, kind in FAMILIES.items()}
