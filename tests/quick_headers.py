"""The general way to write and to read a message, and what holds for every pattern that is quicker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from protocol.codec import MESSAGES
from protocol.envelope import Envelope, Frame, decode_envelope, encode_envelope
from protocol.errors import RemoteProtocolError
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.message import Message

QuickMessage = Callable[[Sequence[Frame], int], tuple[int, Message] | None]
BY_TYPE = {int(kind.TYPE): kind for kind in MESSAGES}


def slow_frames(message: Message, message_id: int) -> list[Frame]:
    return encode_envelope(Envelope(message.TYPE, message_id, message.to_body(), message.to_buffers()))


def slow_message(frames: Sequence[Frame]) -> tuple[int, Message] | None:
    try:
        envelope = decode_envelope(frames, MAX_DATA_HEADER_BYTES)
        return envelope.id, BY_TYPE[envelope.type].from_parts(envelope.body, envelope.buffers)
    except (RemoteProtocolError, KeyError):
        return None


def said(message: Message) -> tuple[Any, ...]:
    """Everything that a message says."""
    buffers = [(one.dtype, one.data.shape, one.data.tobytes()) for one in message.to_buffers()]
    return type(message), message.to_body(), buffers


def damaged(message: Message, message_id: int, data: st.DataObject) -> list[Frame]:
    """The frames of a message with some bytes of the header changed, and sometimes the end of its rows cut off."""
    header, rows = (bytearray(frame) for frame in slow_frames(message, message_id))
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 0, 1, 4]))
    return [bytes(header), bytes(rows[: len(rows) - cut])]


def agrees(read: QuickMessage, frames: Sequence[Frame]) -> bool:
    """Whether a pattern reads what the general way reads, or nothing."""
    found, expected = read(frames, MAX_DATA_HEADER_BYTES), slow_message(frames)
    if found is None:
        return True
    return expected is not None and found[0] == expected[0] and said(found[1]) == said(expected[1])
