"""Frames there and back, and whatever can be thrown at a reader: it raises RemoteProtocolError or nothing."""

from typing import Any

import numpy as np
import pytest
from drawn_messages import MAX_HEADER, ROWS, SHARE, framed, ids, messages, read, relaxed, same
from hypothesis import given
from hypothesis import strategies as st

from protocol import cbor
from protocol.codec import Received, UnknownMessageError, decode_message, encode_message
from protocol.envelope import (
    KEY_BODY,
    KEY_ID,
    KEY_TYPE,
    DType,
    Envelope,
    Tensor,
    decode_envelope,
    encode_envelope,
)
from protocol.errors import LocalProtocolError
from protocol.limits import (
    MAGIC,
    MAX_CONTROL_FRAME_BYTES,
    MAX_DATA_HEADER_BYTES,
)
from protocol.linear.messages import LinearResult
from protocol.link.messages import Pong
from protocol.message import ErrorReply, Message, MessageType, Ping

# --- there and back


@given(messages, ids)
@relaxed
def test_every_message_comes_back_as_it_went(message: Message, message_id: int) -> None:
    frames = [bytes(frame) for frame in encode_message(message, message_id)]
    received = decode_message(frames, MAX_HEADER)
    assert received.id == message_id
    assert same(received.message, message)
    assert [bytes(frame) for frame in encode_message(received.message, message_id)] == frames


def test_every_message_type_is_among_those_that_were_tried() -> None:
    tried = {"HELLO", "HELLO_OK", "PING", "PONG", "GOAWAY", "ATTACH", "CANCEL", "ERROR", "LINEAR", "LINEAR_RESULT"}
    tried |= {"PAIR_ASK", "PAIR_ANSWER", "PAIR_REVEAL", "PAIR_CONFIRM", "PAIR_REFUSE", "UNPAIR"}
    tried |= {"TRUSTED_LINEAR", "TRUSTED_RESULT"}
    tried |= {"PING_REQ", "PING_RESULT", "GOSSIP", "SYNC", "SYNC_OK"}
    tried |= {"DIAL_BACK", "DIAL_BACK_RESULT"}
    tried |= {"BLOB_ASK", "BLOB_OUTLINE", "PIECE_ASK", "PIECE_SLICE", "CREDIT"}
    tried |= {"SPAN_OPEN", "SPAN_OPENED", "SPAN_STEP", "SPAN_PASS", "SPAN_RESULT", "SPAN_CLOSE"}
    assert tried == {kind.name for kind in MessageType}


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 5), (1, 2, 3, 4)])
def test_every_dtype_and_rank_comes_back(dtype: DType, shape: tuple[int, ...]) -> None:
    kinds = {DType.U8: "u1", DType.I8: "i1", DType.I16: "<i2", DType.I32: "<i4", DType.U32: "<u4"}
    kinds |= {DType.F16: "<f2", DType.BF16: "<u2", DType.F32: "<f4"}
    data = np.arange(int(np.prod(shape)), dtype=kinds[dtype]).reshape(shape)
    frames = encode_envelope(Envelope(1, 2, {}, (Tensor(dtype, data),)))
    (tensor,) = decode_envelope(frames, MAX_HEADER).buffers
    assert tensor.dtype is dtype
    assert tensor.data.shape == shape
    assert np.array_equal(tensor.data, data)


def test_an_array_of_another_kind_cannot_be_sent() -> None:
    for data in (np.zeros(2, np.int32), np.zeros(2, ">u4"), np.zeros((4, 4), np.uint32).T[:2]):
        with pytest.raises(LocalProtocolError):
            Tensor(DType.U32, data)


def test_unknown_keys_are_left_alone() -> None:
    header = {KEY_TYPE: MessageType.PING, KEY_ID: 7, KEY_BODY: {99: "later"}, 77: [1, 2]}
    assert read([MAGIC + cbor.encode(header)]) == Received(7, Ping())


def test_an_unknown_type_may_be_answered() -> None:
    frames = [MAGIC + cbor.encode({KEY_TYPE: 999, KEY_ID: 7, KEY_BODY: {}})]
    with pytest.raises(UnknownMessageError) as unknown:
        decode_message(frames, MAX_HEADER)
    assert unknown.value.message_id == 7


# --- what nobody thought of


@given(st.lists(st.binary(max_size=120), max_size=4), st.booleans())
@relaxed
def test_any_frames_are_refused_or_read(frames: list[bytes], with_magic: bool) -> None:
    if with_magic and frames:
        frames[0] = MAGIC + frames[0]
    read(frames)


any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 9), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.sampled_from([*MessageType, 0, 77]),
    st.dictionaries(st.integers(0, 9), any_value, max_size=9),
    st.lists(any_value, max_size=3),
    st.lists(st.binary(max_size=40), max_size=3),
)
@relaxed
def test_any_body_is_refused_or_read(
    kind: int, body: dict[int, Any], described: list[Any], buffers: list[bytes]
) -> None:
    read([*framed({0: int(kind), 1: 1, 4: body, 5: described}), *buffers])


@given(messages, st.data())
@relaxed
def test_mutated_messages_are_refused_or_read(message: Message, data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in encode_message(message, 7)]
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(frames) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "grow", "drop", "double"])):
            case "flip" if frames[index]:
                place = data.draw(st.integers(0, len(frames[index]) - 1))
                frames[index][place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del frames[index][data.draw(st.integers(0, len(frames[index]))) :]
            case "grow":
                frames[index] += data.draw(st.binary(min_size=1, max_size=4))
            case "drop" if len(frames) > 1:
                del frames[index]
            case "double":
                frames.append(bytearray(frames[index]))
            case _:
                pass
    read([bytes(frame) for frame in frames])


@pytest.mark.parametrize("message", [SHARE, LinearResult(bytes(32), 1, ROWS), ErrorReply(5, "no"), Pong(3)])
def test_every_truncation_is_refused(message: Message) -> None:
    frames = [bytes(frame) for frame in encode_message(message, 9)]
    for index, frame in enumerate(frames):
        for end in range(len(frame)):
            assert read([*frames[:index], frame[:end], *frames[index + 1 :]]) is None
    assert read([*frames, b""]) is None
    assert len(frames) == 1 or read(frames[:-1]) is None


def test_a_data_header_has_its_own_bound() -> None:
    frames = encode_message(SHARE, 1)
    assert len(frames[0]) < 256 < MAX_DATA_HEADER_BYTES
    assert decode_message(frames, MAX_DATA_HEADER_BYTES).id == 1


def test_an_error_counts_by_its_code_and_a_text_that_may_not_be_shown_is_left_out() -> None:
    """Any peer may send such a text; that is no lie about a result."""
    frames = encode_envelope(Envelope(MessageType.ERROR, 9, {0: 13, 1: "\x1b[2Jgone"}, ()))
    assert decode_message(frames, MAX_CONTROL_FRAME_BYTES) == Received(9, ErrorReply(13, ""))
