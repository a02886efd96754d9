"""The pattern for the headers of shares and their results: it agrees with the general way, or reads nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from quick_headers import agrees, damaged, said, slow_frames, slow_message

from protocol import cbor
from protocol.envelope import MAX_ID
from protocol.limits import MAX_CHUNK_ROWS, MAX_DATA_BYTES, MAX_DATA_HEADER_BYTES
from protocol.linear.messages import MAX_COMPUTE_US, MAX_TILES, ChunkBinding, Linear, LinearResult, Role
from protocol.linear.quick import quick_frames, quick_message
from protocol.message import Message

EDGES = [0, 1, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, MAX_ID]
IDS = st.sampled_from(EDGES) | st.integers(0, MAX_ID)


@st.composite
def bindings(draw: st.DrawFn) -> ChunkBinding:
    num_rows = draw(st.sampled_from([1, 2, 8, 300]))
    row_start = draw(st.integers(0, MAX_CHUNK_ROWS - num_rows))
    tile_start = draw(st.integers(0, MAX_TILES - 1))
    return ChunkBinding(
        draw(st.binary(min_size=16, max_size=16)),
        draw(IDS),
        draw(st.binary(min_size=32, max_size=32)),
        draw(st.binary(min_size=32, max_size=32)),
        Role.SHARE,
        row_start,
        row_start + num_rows,
        tile_start,
        draw(st.integers(tile_start + 1, MAX_TILES)),
    )


@st.composite
def messages(draw: st.DrawFn) -> Message:
    width = draw(st.sampled_from([1, 5, 24, 300]))
    if draw(st.booleans()):
        binding = draw(bindings())
        return Linear(binding, rows=np.full((binding.num_rows, width), 7, np.uint32))
    micros = draw(st.sampled_from([*EDGES[:-1], MAX_COMPUTE_US]))
    return LinearResult(draw(st.binary(min_size=32, max_size=32)), micros, np.full((3, width), 9, np.uint32))


@given(messages(), IDS)
@settings(deadline=None)
def test_it_writes_and_reads_what_the_general_way_does(message: Message, message_id: int) -> None:
    frames = quick_frames(message, message_id)
    assert frames is not None and [bytes(frame) for frame in frames] == [
        bytes(frame) for frame in slow_frames(message, message_id)
    ]
    read = quick_message(frames, MAX_DATA_HEADER_BYTES)
    if isinstance(message, Linear) and min(message_id, message.binding.nonce) < 1 << 32:
        assert read is None, "ids of a session are longer: this is left to the general way"
    else:
        assert read is not None and read[0] == message_id and said(read[1]) == said(message)


@given(messages(), IDS, st.data())
@settings(deadline=None)
def test_what_it_reads_of_damaged_frames_the_general_way_reads_too(
    message: Message, message_id: int, data: st.DataObject
) -> None:
    assert agrees(quick_message, damaged(message, message_id, data))


@given(bindings(), st.integers(1 << 32, MAX_ID), st.data())
@settings(deadline=None)
def test_a_share_cut_anywhere_is_read_in_neither_way(
    binding: ChunkBinding, message_id: int, data: st.DataObject
) -> None:
    header, rows = slow_frames(Linear(binding, rows=np.ones((binding.num_rows, 3), np.uint32)), message_id)
    cut = [bytes(header)[: data.draw(st.integers(0, len(header) - 1))], rows]
    assert quick_message(cut, MAX_DATA_HEADER_BYTES) is None and slow_message(cut) is None


@given(IDS)
@settings(deadline=None)
def test_numbers_have_their_shortest_form(number: int) -> None:
    assert cbor.encode_uint(number) == cbor.encode(number)


@given(bindings())
@settings(deadline=None)
def test_a_binding_is_put_together_as_it_is_encoded(binding: ChunkBinding) -> None:
    assert binding.encoded == cbor.encode(binding.as_list())
    odd = replace(binding, session=b"short")
    assert odd.encoded == cbor.encode(odd.as_list())


@pytest.mark.parametrize(
    "longer", [b"\x18\x01", b"\x19\x00\xff", b"\x1a\x00\x00\xff\xff", b"\x1b" + bytes(4) + b"\xff" * 4]
)
def test_a_number_in_a_longer_form_is_left_to_the_general_way(longer: bytes) -> None:
    result = LinearResult(bytes(32), 1, np.ones((1, 1), np.uint32))
    header, rows = slow_frames(result, 0)
    assert header[9:12] == b"\x00\x04\xa2", "the id, then the body"
    changed = [bytes(header[:9]) + longer + bytes(header[10:]), rows]
    assert quick_message(changed, MAX_DATA_HEADER_BYTES) is None and slow_message(changed) is None


def test_a_seed_and_odd_arrays_are_left_to_the_general_way() -> None:
    binding = ChunkBinding(bytes(16), 1, bytes(32), bytes(32), Role.PAD, 0, 1, 0, 1)
    assert quick_frames(Linear(binding, seed=bytes(32)), 1) is None
    rows = np.ones((2, 4), np.uint32)
    assert quick_frames(LinearResult(bytes(32), 1, rows[:, ::2]), 1) is None
    assert quick_frames(LinearResult(bytes(32), 1, rows), 1 << 64) is None
    frames = slow_frames(LinearResult(bytes(32), 1, rows), 1)
    assert quick_message(frames, 20) is None and quick_message(frames[:1], MAX_DATA_HEADER_BYTES) is None


def test_more_than_a_message_may_hold_is_read_in_neither_way() -> None:
    for num_elements, is_read in ((MAX_DATA_BYTES // 4, True), (MAX_DATA_BYTES // 4 + 1, False)):
        result = LinearResult(bytes(32), 1, np.zeros((1, num_elements), np.uint32))
        frames = quick_frames(result, 7)
        assert frames is not None
        assert (quick_message(frames, MAX_DATA_HEADER_BYTES) is not None) == is_read
        assert (slow_message(frames) is not None) == is_read


@pytest.mark.parametrize("num_rows", [1, 2, 4, 8])
def test_rows_that_are_not_those_of_the_binding_are_read_in_neither_way(num_rows: int) -> None:
    binding = ChunkBinding(bytes(16), MAX_ID, bytes(32), bytes(32), Role.SHARE, 0, 3, 0, 1)
    for rows, is_read in ((3, True), (num_rows, False)):
        frames = quick_frames(Linear(binding, rows=np.ones((rows, 5), np.uint32)), MAX_ID)
        assert frames is not None
        assert (quick_message(frames, MAX_DATA_HEADER_BYTES) is not None) == is_read
        assert (slow_message(frames) is not None) == is_read
