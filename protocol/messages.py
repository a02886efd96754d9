"""One immutable class for each message, with the form of its body.

`parse` is strict about what it knows and silent about unknown keys, so that later versions can add some.
The CDDL in SPEC.md section 5 says the same and is checked against these classes by a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from protocol import envelope as wire
from protocol.envelope import DType, Envelope, Frame, Tensor
from protocol.errors import RemoteProtocolError
from protocol.field import Elements
from protocol.fields import (
    take_bytes,
    take_integer,
    take_integers,
    take_list,
    take_text,
    take_texts,
)
from protocol.limits import (
    HASH_BYTES,
    MAX_ADDRESSES,
    MAX_AGENT_CHARACTERS,
    MAX_CHUNK_ROWS,
    MAX_ERROR_CHARACTERS,
    MAX_HOSTED_MODELS,
    MAX_HOSTED_UNITS,
    MAX_UNIT_INPUTS,
    MAX_UNIT_OUTPUTS,
    NONCE_BYTES,
    SEED_BYTES,
    SESSION_BYTES,
    TILE_OUTPUTS,
)

MAX_TILES = MAX_UNIT_OUTPUTS // TILE_OUTPUTS


class MessageType(IntEnum):
    """Numbers are never reused; 1000 and above are for experiments."""

    HELLO = 1
    HELLO_OK = 2
    PING = 3
    PONG = 4
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
class HostedModel:
    """Units of one model that a node holds, by hash."""

    model_id: bytes
    units: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a link, each way: who I am, what I speak, what I can do."""

    public_key: bytes
    versions: tuple[int, ...]
    agent: str
    addrs: tuple[str, ...]
    data_port: int
    """TCP port of the data plane at the same host; 0 where nobody can dial in."""
    hosted: tuple[HostedModel, ...]
    macs_per_s: int
    """Measured speed on field elements, multiply-accumulates a second."""
    work: tuple[int, ...]
    nonce: bytes


@dataclass(frozen=True, slots=True)
class HelloOk(Hello):
    """Answer to a hello: the same facts about the answering side."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Liveness; the answer is a Pong with the same message id."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a Ping."""

    queued: int
    """Chunks waiting at the sender's worker."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """The sender leaves: nothing new, please."""

    reason: str


@dataclass(frozen=True, slots=True)
class Attach:
    """First message on a data connection whose dialler offers to serve over it."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The request with this id is no longer wanted. One way, idempotent."""

    request_id: int


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Answer to the message of the same id: a code and one sentence."""

    code: int
    text: str


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


Message = Hello | HelloOk | Ping | Pong | GoAway | Attach | Cancel | ErrorReply | Linear | LinearResult


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
    if reader is None:
        raise UnknownMessageError(received.type, received.id)
    return Received(received.id, reader(received.body, received.buffers))


class UnknownMessageError(RemoteProtocolError):
    """A well-formed message of a type this node does not know: answered with UNIMPLEMENTED."""

    def __init__(self, message_type: int, message_id: int) -> None:
        super().__init__(f"message type {message_type} is not known here")
        self.message_id = message_id


def _to_body(message: Message) -> tuple[MessageType, dict[int, Any], tuple[Tensor, ...]]:
    match message:
        case HelloOk():
            return MessageType.HELLO_OK, _hello_body(message), ()
        case Hello():
            return MessageType.HELLO, _hello_body(message), ()
        case Ping():
            return MessageType.PING, {}, ()
        case Pong(queued):
            return MessageType.PONG, {0: queued}, ()
        case GoAway(reason):
            return MessageType.GOAWAY, {0: reason[:MAX_ERROR_CHARACTERS]}, ()
        case Attach():
            return MessageType.ATTACH, {}, ()
        case Cancel(request_id):
            return MessageType.CANCEL, {0: request_id}, ()
        case ErrorReply(code, text):
            return MessageType.ERROR, {0: int(code), 1: text[:MAX_ERROR_CHARACTERS]}, ()
        case Linear(binding, seed, rows):
            body: dict[int, Any] = {0: binding.as_list()}
            if seed is not None:
                body[1] = seed
            buffers = () if rows is None else (Tensor(DType.U32, rows),)
            return MessageType.LINEAR, body, buffers
        case LinearResult(digest, compute_us, rows):
            return MessageType.LINEAR_RESULT, {0: digest, 1: compute_us}, (Tensor(DType.U32, rows),)


def _hello_body(hello: Hello) -> dict[int, Any]:
    return {
        0: hello.public_key,
        1: list(hello.versions),
        2: hello.agent,
        3: list(hello.addrs),
        4: hello.data_port,
        5: [[model.model_id, list(model.units)] for model in hello.hosted],
        6: hello.macs_per_s,
        7: list(hello.work),
        8: hello.nonce,
    }


def _read_hello(body: dict[int, Any], _buffers: tuple[Tensor, ...]) -> Hello:
    return Hello(**_hello_fields(body))


def _read_hello_ok(body: dict[int, Any], _buffers: tuple[Tensor, ...]) -> HelloOk:
    return HelloOk(**_hello_fields(body))


def _hello_fields(body: dict[int, Any]) -> dict[str, Any]:
    return {
        "public_key": take_bytes(body, 0, 32),
        "versions": take_integers(body, 1, 16, 0, 65535),
        "agent": take_text(body, 2, MAX_AGENT_CHARACTERS),
        "addrs": take_texts(body, 3, MAX_ADDRESSES, 256),
        "data_port": take_integer(body, 4, 0, 65535),
        "hosted": tuple(_read_hosted(entry) for entry in take_list(body, 5, MAX_HOSTED_MODELS)),
        "macs_per_s": take_integer(body, 6, 0, 1 << 62),
        "work": take_integers(body, 7, 16, 0, 65535),
        "nonce": take_bytes(body, 8, NONCE_BYTES),
    }


def _read_hosted(entry: Any) -> HostedModel:
    if not isinstance(entry, list) or len(entry) != 2:
        raise RemoteProtocolError("a hosted model is [model id, [unit hashes]]")
    fields = {0: entry[0], 1: entry[1]}
    units = take_list(fields, 1, MAX_HOSTED_UNITS)
    hashes = tuple(take_bytes({0: unit}, 0, HASH_BYTES) for unit in units)
    return HostedModel(take_bytes(fields, 0, HASH_BYTES), hashes)


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


_READERS: dict[int, Any] = {
    MessageType.HELLO: _read_hello,
    MessageType.HELLO_OK: _read_hello_ok,
    MessageType.PING: lambda body, buffers: Ping(),
    MessageType.PONG: lambda body, buffers: Pong(take_integer(body, 0, 0, 1 << 31)),
    MessageType.GOAWAY: lambda body, buffers: GoAway(take_text(body, 0, MAX_ERROR_CHARACTERS)),
    MessageType.ATTACH: lambda body, buffers: Attach(),
    MessageType.CANCEL: lambda body, buffers: Cancel(take_integer(body, 0, 0, wire.MAX_ID)),
    MessageType.ERROR: lambda body, buffers: ErrorReply(
        take_integer(body, 0, 0, 65535), take_text(body, 1, MAX_ERROR_CHARACTERS)
    ),
    MessageType.LINEAR: _read_linear,
    MessageType.LINEAR_RESULT: _read_linear_result,
}
