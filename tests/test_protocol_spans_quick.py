"""The pattern for the headers of steps and their results: it agrees with the general way, or reads nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_headers import agrees, damaged, said, slow_frames, slow_message

from protocol import cbor
from protocol.envelope import MAX_ID
from protocol.identity import peer_id_of
from protocol.limits import MAGIC, MAX_COMPUTE_US, MAX_DATA_HEADER_BYTES, MAX_HIDDEN_SIZE, MAX_LAYERS, MAX_POSITIONS
from protocol.message import Message
from protocol.spans.binding import SpanBinding, SpanRows
from protocol.spans.messages import SpanPass, SpanResult, SpanStep
from protocol.spans.onward import Onward
from protocol.spans.quick import quick_frames, quick_message

EDGES = [0, 1, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, MAX_ID]
IDS = st.sampled_from(EDGES) | st.integers(0, MAX_ID)
HASHES = st.binary(min_size=32, max_size=32)


@st.composite
def bindings(draw: st.DrawFn, num_rows: int) -> SpanBinding:
    first = draw(st.integers(0, MAX_LAYERS - 1))
    start = draw(st.sampled_from([0, 23, 24, 300, MAX_POSITIONS - num_rows]))
    rows = SpanRows(draw(st.binary(min_size=16, max_size=16)), start, start + num_rows)
    return SpanBinding(draw(IDS), draw(HASHES), first, draw(st.integers(first + 1, MAX_LAYERS)), (rows,))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    num_rows = draw(st.sampled_from([1, 2, 8, 300]))
    rows = np.full((num_rows, draw(st.sampled_from([1, 5, 24, 300]))), 7, np.float32)
    kind = draw(st.sampled_from([SpanStep, SpanPass, SpanResult]))
    if kind is SpanResult:
        micros = draw(st.sampled_from([*EDGES[:-1], MAX_COMPUTE_US]))
        return SpanResult(draw(HASHES), micros, rows, draw(st.none() | HASHES), draw(st.booleans()))
    following = [Onward(peer_id_of(draw(HASHES)), draw(bindings(num_rows)), draw(HASHES))]
    way = tuple(following[: draw(st.integers(0, 1))])
    own = draw(bindings(num_rows))
    return SpanStep(own, rows, way) if kind is SpanStep else SpanPass(own, rows, way, draw(HASHES))


@given(messages(), IDS)
@settings(deadline=None)
def test_it_writes_and_reads_what_the_general_way_does(message: Message, message_id: int) -> None:
    frames = quick_frames(message, message_id)
    assert frames is not None and [bytes(frame) for frame in frames] == [
        bytes(frame) for frame in slow_frames(message, message_id)
    ]
    read = quick_message(frames, MAX_DATA_HEADER_BYTES)
    assert read is not None and read[0] == message_id and said(read[1]) == said(message)


@given(messages(), IDS, st.data())
@settings(deadline=None)
def test_what_it_reads_of_damaged_frames_the_general_way_reads_too(
    message: Message, message_id: int, data: st.DataObject
) -> None:
    assert agrees(quick_message, damaged(message, message_id, data))


@given(messages(), IDS, st.data())
@settings(deadline=None)
def test_a_header_cut_anywhere_is_read_in_neither_way(message: Message, message_id: int, data: st.DataObject) -> None:
    header, rows = slow_frames(message, message_id)
    cut = [bytes(header)[: data.draw(st.integers(0, len(header) - 1))], rows]
    assert quick_message(cut, MAX_DATA_HEADER_BYTES) is None and slow_message(cut) is None


@given(st.integers(1, 300).flatmap(bindings), HASHES)
@settings(deadline=None)
def test_what_a_result_is_bound_to_is_put_together_as_it_is_encoded(binding: SpanBinding, key: bytes) -> None:
    (part,) = binding.parts
    onward = Onward(peer_id_of(key), binding, key)
    assert onward.encoded == cbor.encode(onward.as_list())
    for parts in (binding.parts, (part, part), (), (SpanRows(b"short", 0, 1),)):
        one = SpanBinding(binding.nonce, binding.model_id, binding.first, binding.end, parts)
        assert one.encoded == cbor.encode(one.as_list())
    odd = Onward(onward.peer_id, SpanBinding(1, b"short", 0, 1, binding.parts), b"short")
    assert odd.encoded == cbor.encode(odd.as_list())


PART = SpanRows(bytes(16), 5, 8)
RIGHT = SpanBinding(7, bytes(32), 2, 9, (PART,))
ROWS = np.ones((3, 4), np.float32)


def test_other_steps_are_left_to_the_general_way() -> None:
    onward = Onward(peer_id_of(bytes(32)), RIGHT, bytes(32))
    several = SpanStep(
        SpanBinding(7, bytes(32), 2, 9, (PART, SpanRows(b"B" * 16, 0, 3))), np.ones((6, 4), np.float32)
    )
    for step in (SpanStep(RIGHT, ROWS, (onward, onward)), several):
        frames = slow_frames(step, 1)
        assert quick_message(frames, MAX_DATA_HEADER_BYTES) is None
        read = slow_message(frames)
        assert read is not None and said(read[1]) == said(step)
    assert quick_frames(SpanStep(RIGHT, ROWS, (onward, onward)), 1) is None
    assert quick_frames(SpanPass(RIGHT, ROWS, (), b"short"), 1) is None
    assert quick_frames(SpanResult(b"short", 1, ROWS), 1) is None
    assert quick_frames(SpanResult(bytes(32), 1, ROWS, b"short"), 1) is None
    assert quick_frames(SpanResult(bytes(32), 1, np.ones((3, 8), np.float32)[:, ::2]), 1) is None
    assert quick_frames(SpanResult(bytes(32), 1, ROWS), MAX_ID + 1) is None


@pytest.mark.parametrize(
    ("first", "end", "start", "stop"),
    [(2, 2, 5, 8), (3, 2, 5, 8), (2, MAX_LAYERS + 1, 5, 8), (2, 9, 5, 7), (2, 9, 8, 5), (2, 9, 5, 9)],
)
def test_a_binding_that_breaks_a_rule_is_read_in_neither_way(first: int, end: int, start: int, stop: int) -> None:
    wrong = SpanBinding(7, bytes(32), first, end, (SpanRows(bytes(16), start, stop),))
    onward = Onward(peer_id_of(bytes(32)), wrong, bytes(32))
    for step in (
        SpanStep(wrong, ROWS),
        SpanStep(RIGHT, ROWS, (onward,)),
        SpanPass(RIGHT, ROWS, (onward,), bytes(32)),
    ):
        frames = quick_frames(step, 1)
        assert frames is not None
        assert quick_message(frames, MAX_DATA_HEADER_BYTES) is None and slow_message(frames) is None


@pytest.mark.parametrize("size", [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5])
@pytest.mark.parametrize("way", [(), (Onward(peer_id_of(bytes(32)), RIGHT, bytes(32)),)])
def test_a_body_that_states_another_number_of_keys_is_read_in_neither_way(size: int, way: tuple[Onward, ...]) -> None:
    answers = (SpanResult(bytes(32), 1, ROWS), SpanResult(bytes(32), 1, ROWS, bytes(32), True))
    for message in (SpanStep(RIGHT, ROWS, way), SpanPass(RIGHT, ROWS, way, bytes(32)), *answers):
        header, rows = slow_frames(message, 1)
        at = len(MAGIC) + len(b"\xa4\x00\x18\x32\x01\x01\x04")
        is_right = header[at] == size
        frames = [bytes(header[:at]) + bytes([size]) + bytes(header[at + 1 :]), rows]
        assert (quick_message(frames, MAX_DATA_HEADER_BYTES) is not None) == is_right
        assert (slow_message(frames) is not None) == is_right


def test_rows_beyond_every_limit_are_read_in_neither_way() -> None:
    last = SpanRows(bytes(16), MAX_POSITIONS - 2, MAX_POSITIONS + 1)
    assert slow_message(slow_frames(SpanStep(SpanBinding(7, bytes(32), 2, 9, (last,)), ROWS), 1)) is None
    for message in (
        SpanStep(SpanBinding(7, bytes(32), 2, 9, (last,)), ROWS),
        SpanStep(RIGHT, np.ones((3, MAX_HIDDEN_SIZE + 1), np.float32)),
        SpanResult(bytes(32), 1, np.ones((513, 1), np.float32)),
        SpanResult(bytes(32), MAX_COMPUTE_US + 1, ROWS),
    ):
        frames = quick_frames(message, 1)
        assert frames is not None
        assert quick_message(frames, MAX_DATA_HEADER_BYTES) is None and slow_message(frames) is None
