"""Turns messages into frames and frames into messages, with one registry of all messages.

Parsing is strict about what it knows and silent about unknown keys, so that later versions can add some.
The CDDL in SPEC.md section 5 says the same and is checked against these classes by a test.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from protocol.envelope import Envelope, Frame, decode_envelope, encode_envelope
from protocol.errors import RemoteProtocolError
from protocol.finding.dialback import DialBack, DialBackResult
from protocol.linear import quick as quick_linear
from protocol.linear.messages import Linear, LinearResult, TrustedLinear, TrustedResult
from protocol.link.hello import Hello, HelloOk
from protocol.link.messages import Attach, GoAway, Pong
from protocol.membership.messages import Gossip, PingReq, PingResult, Sync, SyncOk
from protocol.message import Cancel, ErrorReply, Message, Ping
from protocol.pairing.messages import PairAnswer, PairAsk, PairConfirm, PairRefuse, PairReveal, Unpair
from protocol.spans import quick as quick_spans
from protocol.spans.messages import SpanClose, SpanOpen, SpanOpened, SpanPass, SpanResult, SpanStep
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice

MESSAGES: tuple[type[Message], ...] = (
    *(Hello, HelloOk, Ping, Pong, GoAway, Attach, Cancel, ErrorReply),
    *(PingReq, Gossip, Sync, SyncOk, PingResult),
    *(DialBack, DialBackResult),
    *(PairAsk, PairAnswer, PairReveal, PairConfirm, PairRefuse, Unpair),
    *(Linear, LinearResult, TrustedLinear, TrustedResult),
    *(BlobAsk, BlobOutline, PieceAsk, PieceSlice, Credit),
    *(SpanOpen, SpanOpened, SpanStep, SpanPass, SpanResult, SpanClose),
)
"""All messages of this version."""

_BY_TYPE: dict[int, type[Message]] = {kind.TYPE: kind for kind in MESSAGES}


class Received(Struct, frozen=True):
    """A message with the id it came under."""

    id: int
    message: Message


class UnknownMessageError(RemoteProtocolError):
    """A well-formed message of a type this node does not know: answered with UNIMPLEMENTED."""

    def __init__(self, message_type: int, message_id: int) -> None:
        super().__init__(f"message type {message_type} is not known here")
        self.message_id = message_id


def encode_message(message: Message, message_id: int) -> list[Frame]:
    """Frames of one message."""
    quick = quick_linear.quick_frames(message, message_id) or quick_spans.quick_frames(message, message_id)
    return quick or encode_envelope(Envelope(message.TYPE, message_id, message.to_body(), message.to_buffers()))


def decode_message(frames: Sequence[Frame], max_header_bytes: int) -> Received:
    """Read one message; raises RemoteProtocolError. Where that is an `UnknownMessageError`, it may be answered."""
    for module in (quick_linear, quick_spans):
        if (quick := module.quick_message(frames, max_header_bytes)) is not None:
            return Received(*quick)
    received = decode_envelope(frames, max_header_bytes)
    kind = _BY_TYPE.get(received.type)
    if kind is None:
        raise UnknownMessageError(received.type, received.id)
    return Received(received.id, kind.from_parts(received.body, received.buffers))
