"""Headers, buffers and CBOR outside the profile: each is refused, and refused as a RemoteProtocolError."""

import struct
from typing import Any

import cbor2
import pytest
from drawn_messages import MAX_HEADER, framed, read, relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import cbor
from protocol.codec import decode_message, encode_message
from protocol.envelope import (
    DType,
    decode_envelope,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import (
    MAGIC,
    MAX_DATA_BYTES,
)
from protocol.link.messages import GoAway

# --- one strict profile of CBOR

REFUSED = {
    "no bytes": b"",
    "trailing": b"\x01\x02",
    "truncated map": b"\xa2\x00\x01",
    "truncated text": b"\x63ab",
    "indefinite map": b"\xbf\x00\x01\xff",
    "indefinite list": b"\x9f\x01\xff",
    "indefinite bytes": b"\x5f\x41a\xff",
    "indefinite text": b"\x7f\x61a\xff",
    "a break alone": b"\xff",
    "duplicate key": b"\xa2\x00\x01\x00\x02",
    "keys out of order": b"\xa2\x01\x00\x00\x00",
    "long form of 1": b"\x18\x01",
    "longer form of 1": b"\x19\x00\x01",
    "8-byte length": b"\x5b" + bytes(7) + b"\x01a",
    "huge list": b"\x9b" + b"\x7f" + b"\xff" * 7,
    "huge bytes": b"\x5b" + b"\x7f" + b"\xff" * 7,
    "huge map": b"\xbb" + b"\xff" * 8,
    "bad UTF-8": b"\x61\xff",
    "reserved info": b"\x1c",
    "float in 8 bytes that fits in 2": b"\xfb" + struct.pack(">d", 1.0),
    "nested too deep": b"\x81" * 9 + b"\x00",
    "nested far too deep": b"\x81" * 5000 + b"\x00",
    "bignum": b"\xc2\x49" + b"\xff" * 9,
    "date": b"\xc0\x6a2020-01-01",
    "regular expression": b"\xd8\x23\x62a+",
    "shared reference": b"\xd8\x1c\x81\xd8\x1d\x00",
    "self-describing": b"\xd9\xd9\xf7\x01",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_outside_the_profile_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        cbor.decode(REFUSED[name], 1 << 16)


@pytest.mark.parametrize("content", [b"\x00", b"\x61a", b"\x41a", b"\x80", b"\x81\x00", b"\xa0", b"\xf6"])
def test_every_tag_is_refused(content: bytes) -> None:
    for tag in [*range(301), 55799, 55800, 1 << 32, (1 << 64) - 1]:
        if tag < 24:
            head = bytes([0xC0 + tag])
        elif tag < 256:
            head = b"\xd8" + bytes([tag])
        elif tag < 65536:
            head = b"\xd9" + tag.to_bytes(2, "big")
        else:
            head = b"\xdb" + tag.to_bytes(8, "big")
        for data in (head + content, b"\x81" + head + content, b"\xa1\x00" + head + content):
            with pytest.raises(RemoteProtocolError):
                cbor.decode(data, 1 << 16)


def test_depth_is_counted_as_promised() -> None:
    assert cbor.decode(b"\x81" * (cbor.MAX_DEPTH - 1) + b"\x00", 100) is not None


def test_length_is_checked_before_anything_is_read() -> None:
    data = cbor.encode([0] * 50)
    assert cbor.decode(data, len(data)) == [0] * 50
    with pytest.raises(RemoteProtocolError, match="at most"):
        cbor.decode(data, len(data) - 1)


@given(st.binary(max_size=200))
@relaxed
def test_any_bytes_are_a_value_or_a_remote_error(data: bytes) -> None:
    try:
        value = cbor.decode(data, 200)
    except RemoteProtocolError:
        return
    assert cbor.encode(value) == data


def test_what_cannot_be_encoded_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        cbor.encode({0: object()})


BAD_HEADERS: dict[str, list[bytes]] = {
    "no frame": [],
    "empty frame": [b""],
    "magic alone": [MAGIC],
    "half a magic": [b"KE"],
    "other magic": [b"GET / HTTP/1.1\r\n"],
    "other version": [b"KEK\x02" + cbor2.dumps({0: 3, 1: 1, 4: {}})],
    "a list": framed([0, 1]),
    "a number": framed(1),
    "text keys": framed({"0": 3, "1": 1, "4": {}}),
    "boolean keys": [MAGIC + b"\xa3\x00\x03\xf5\x01\x04\xa0"],
    "no type": framed({1: 1, 4: {}}),
    "no id": framed({0: 3, 4: {}}),
    "no body": framed({0: 3, 1: 1}),
    "boolean type": framed({0: True, 1: 1, 4: {}}),
    "boolean id": framed({0: 3, 1: True, 4: {}}),
    "float id": framed({0: 3, 1: 1.5, 4: {}}),
    "negative id": framed({0: 3, 1: -1, 4: {}}),
    "id beyond u64": framed({0: 3, 1: 1 << 64, 4: {}}),
    "body is a list": framed({0: 3, 1: 1, 4: []}),
    "body with text keys": framed({0: 3, 1: 1, 4: {"a": 1}}),
    "body with boolean keys": [MAGIC + b"\xa3\x00\x03\x01\x01\x04\xa1\xf5\x00"],
    "buffers is a map": framed({0: 3, 1: 1, 4: {}, 5: {}}),
    "buffers described but absent": framed({0: 3, 1: 1, 4: {}, 5: [[1, [0], 0]]}),
    "a frame that is not described": [*framed({0: 3, 1: 1, 4: {}}), b"x"],
    "eighteen frames": [*framed({0: 3, 1: 1, 4: {}, 5: [[1, [0], 0]] * 17}), *[b""] * 17],
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_bad_header_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(BAD_HEADERS[name], MAX_HEADER)


def test_another_version_of_the_envelope_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match="version 2"):
        decode_message(BAD_HEADERS["other version"], MAX_HEADER)


def test_a_header_may_fill_its_frame_and_no_more() -> None:
    (frame,) = encode_message(GoAway("bye"), 1)
    assert read([frame], len(frame)) is not None
    assert read([frame], len(frame) - 1) is None


BAD_BUFFERS: dict[str, tuple[Any, bytes]] = {
    "not a list": (5, b""),
    "two entries": ([5, [0]], b""),
    "four entries": ([5, [0], 0, 0], b""),
    "shape is a number": ([5, 1, 4], bytes(4)),
    "dtype 0": ([0, [4], 4], bytes(4)),
    "dtype 9": ([9, [4], 4], bytes(4)),
    "dtype is text": (["u4", [1], 4], bytes(4)),
    "dtype is a boolean": ([True, [4], 4], bytes(4)),
    "dtype is a list": ([[], [4], 4], bytes(4)),
    "five dimensions": ([1, [1] * 5, 1], bytes(1)),
    "negative extent": ([1, [-1, -4], 4], bytes(4)),
    "boolean extent": ([1, [True], 1], bytes(1)),
    "float extent": ([1, [4.0], 4], bytes(4)),
    "shape too small": ([5, [1], 8], bytes(8)),
    "size too small": ([5, [2], 4], bytes(8)),
    "frame too small": ([5, [2], 8], bytes(4)),
    "frame too large": ([5, [2], 8], bytes(12)),
    "not whole elements": ([5, [1], 5], bytes(5)),
    "boolean size": ([1, [1], True], bytes(1)),
    "huge size": ([5, [1 << 40], 1 << 42], bytes(4)),
    "huge beside zero": ([5, [0, 1 << 23, 1 << 23, 1 << 23], 0], b""),
    "huge around zero": ([5, [1 << 23, 1 << 23, 0, 1 << 23], 0], b""),
    "wraps around 2^64": ([1, [1 << 16] * 4, 0], b""),
}


@pytest.mark.parametrize("name", BAD_BUFFERS)
def test_a_bad_buffer_is_refused(name: str) -> None:
    entry, frame = BAD_BUFFERS[name]
    with pytest.raises(RemoteProtocolError):
        decode_envelope([*framed({0: 3, 1: 1, 4: {}, 5: [entry]}), frame], MAX_HEADER)


def test_buffers_are_bounded_together() -> None:
    half = bytes(MAX_DATA_BYTES // 2)
    entry = [int(DType.U8), [len(half)], len(half)]
    fits = [*framed({0: 3, 1: 1, 4: {}, 5: [entry, entry]}), half, half]
    assert len(decode_envelope(fits, MAX_HEADER).buffers) == 2
    too_much = [*framed({0: 3, 1: 1, 4: {}, 5: [entry, entry, [1, [1], 1]]}), half, half, b"x"]
    with pytest.raises(RemoteProtocolError, match="more than"):
        decode_envelope(too_much, MAX_HEADER)


@given(st.lists(st.integers(0, MAX_DATA_BYTES), max_size=6), st.sampled_from([1, 3, 5]), st.binary(max_size=16))
@example([0, 1 << 23, 1 << 23, 1 << 23], 5, b"")
@relaxed
def test_any_shape_is_read_or_refused(shape: list[int], dtype: int, frame: bytes) -> None:
    frames = [*framed({0: 3, 1: 1, 4: {}, 5: [[dtype, shape, len(frame)]]}), frame]
    try:
        (tensor,) = decode_envelope(frames, MAX_HEADER).buffers
    except RemoteProtocolError:
        return
    assert tensor.data.nbytes == len(frame)
    assert list(tensor.data.shape) == shape
