"""What all messages have in common, and the three that every wing uses: liveness, cancellation, errors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Self

from msgspec import Struct

from protocol.envelope import MAX_ID, Tensor
from protocol.errors import RemoteProtocolError
from protocol.fields import take_integer
from protocol.limits import MAX_ERROR_CHARACTERS


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
    SPAN_OPEN = 48
    SPAN_OPENED = 49
    SPAN_STEP = 50
    SPAN_RESULT = 51
    SPAN_CLOSE = 52
    SPAN_PASS = 53


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
    NO_CACHE = 101


class Message(Struct, frozen=True):
    """A message: a body and, for some types, buffers. Each class is one type of message, which it encodes and
    decodes."""

    TYPE: ClassVar[MessageType]

    def to_body(self) -> dict[int, Any]:
        """The body as it is encoded."""
        raise NotImplementedError

    def to_buffers(self) -> tuple[Tensor, ...]:
        """Tensors that follow the header."""
        return ()

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        """Read it; raises RemoteProtocolError. Unknown keys are ignored, so that later versions can add some."""
        raise NotImplementedError


class BodyMessage(Message, frozen=True):
    """A message without a buffer; buffers that come with one are ignored."""

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        """Read it; raises RemoteProtocolError."""
        raise NotImplementedError

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        return cls.from_body(body)


class Ping(BodyMessage, frozen=True):
    """Liveness; the answer is a Pong with the same message id."""

    TYPE: ClassVar[MessageType] = MessageType.PING

    def to_body(self) -> dict[int, Any]:
        return {}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls()


class Cancel(BodyMessage, frozen=True):
    """The request with this id is cancelled. One way, idempotent."""

    TYPE: ClassVar[MessageType] = MessageType.CANCEL
    request_id: int

    def to_body(self) -> dict[int, Any]:
        return {0: self.request_id}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, MAX_ID))


class ErrorReply(BodyMessage, frozen=True):
    """Answer to the message of the same id: a code and one sentence."""

    TYPE: ClassVar[MessageType] = MessageType.ERROR
    code: int
    text: str

    def to_body(self) -> dict[int, Any]:
        return {0: int(self.code), 1: self.text[:MAX_ERROR_CHARACTERS]}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        """Only the code matters. A text that cannot be printed is dropped: no result depends on it."""
        code, text = take_integer(body, 0, 0, 65535), body.get(1)
        if not isinstance(text, str) or len(text) > MAX_ERROR_CHARACTERS:
            raise RemoteProtocolError(f"field 1 is not text of at most {MAX_ERROR_CHARACTERS} characters")
        return cls(code, text if text.isprintable() else "")
