"""Frames there and back, and whatever can be thrown at a reader: it raises RemoteProtocolError or nothing."""

import struct
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import cbor
from protocol.codec import Received, UnknownMessageError, decode_message, encode_message
from protocol.envelope import (
    KEY_BODY,
    KEY_BUFFERS,
    KEY_ID,
    KEY_TYPE,
    MAX_ID,
    DType,
    Envelope,
    Tensor,
    decode_envelope,
    encode_envelope,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.finding.dialback import DialBack, DialBackResult, DialBackStatus
from protocol.limits import (
    MAGIC,
    MAX_BLOB_PIECES,
    MAX_CONTROL_FRAME_BYTES,
    MAX_DATA_BYTES,
    MAX_DATA_HEADER_BYTES,
    PIECE_BYTES,
)
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.link.hello import Hello, HelloOk, HostedModel
from protocol.link.messages import Attach, GoAway, Pong
from protocol.membership.messages import (
    Claim,
    Digest,
    DigestEntry,
    Gossip,
    PingReq,
    PingResult,
    State,
    Sync,
    SyncOk,
)
from protocol.message import Cancel, ErrorReply, Message, MessageType, Ping
from protocol.pairing.messages import (
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairRefusal,
    PairRefuse,
    PairReveal,
    Unpair,
)
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice
from protocol.transfer.outline import Outline

MAX_HEADER = MAX_CONTROL_FRAME_BYTES
relaxed = settings(deadline=None)

hashes = st.binary(min_size=32, max_size=32)
ids = st.integers(0, MAX_ID)
printable = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=64)
small = st.integers(0, 65535)


def hellos(kind: type[Hello]) -> st.SearchStrategy[Hello]:
    hosted = st.builds(HostedModel, hashes, st.lists(hashes, max_size=3).map(tuple))
    return st.builds(
        kind,
        public_key=hashes,
        versions=st.lists(small, max_size=16).map(tuple),
        agent=printable,
        addrs=st.lists(printable, max_size=8).map(tuple),
        data_port=small,
        hosted=st.lists(hosted, max_size=8).map(tuple),
        macs_per_s=st.integers(0, 1 << 62),
        work=st.lists(small, max_size=16).map(tuple),
        nonce=st.binary(min_size=16, max_size=16),
        proof=st.none() | hashes,
        observed=printable,
        operator=st.binary(min_size=16, max_size=16),
        clock_ms=st.integers(0, 1 << 62),
    )


keys = hashes
seqs = st.integers(0, (1 << 63) - 1)
envelopes = st.lists(st.binary(max_size=1200), max_size=4).map(tuple)
claims = st.lists(st.builds(Claim, keys, seqs, st.sampled_from([State.SUSPECT, State.DEAD]), keys), max_size=4).map(
    tuple
)
digests = st.builds(
    Digest,
    keys,
    st.none() | keys,
    st.lists(st.builds(DigestEntry, keys, seqs, st.binary(min_size=8, max_size=8)), max_size=4).map(tuple),
)
membership: st.SearchStrategy[Message] = st.one_of(
    st.builds(PingReq, keys, seqs),
    st.builds(PingResult, keys, seqs, st.booleans()),
    st.builds(Gossip, envelopes, claims),
    st.builds(Sync, keys, st.binary(max_size=1200)),
    st.builds(SyncOk, st.none() | digests, envelopes, claims, st.lists(keys, max_size=4).map(tuple)),
)
dialbacks: st.SearchStrategy[Message] = st.one_of(
    st.builds(DialBack, printable, st.binary(min_size=16, max_size=16)),
    st.builds(DialBackResult, st.binary(min_size=16, max_size=16), st.sampled_from(DialBackStatus)),
)

outlines = st.integers(1, 5).flatmap(
    lambda count: st.builds(
        Outline,
        st.integers((count - 1) * PIECE_BYTES + 1, count * PIECE_BYTES),
        st.lists(hashes, min_size=count, max_size=count).map(tuple),
    )
)
transfers: st.SearchStrategy[Message] = st.one_of(
    st.builds(BlobAsk, hashes),
    outlines.map(lambda outline: BlobOutline(outline.pieces[0], outline)),
    st.builds(PieceSlice, st.integers(0, PIECE_BYTES - 1), st.binary(min_size=1, max_size=99).map(memoryview)),
    st.builds(PieceAsk, hashes, st.integers(0, MAX_BLOB_PIECES - 1)),
    st.builds(Credit, st.integers(0, MAX_ID)),
)


@st.composite
def bindings(draw: st.DrawFn, role: Role) -> ChunkBinding:
    row_start = draw(st.integers(0, 500))
    tile_start = draw(st.integers(0, 2000))
    return ChunkBinding(
        draw(st.binary(min_size=16, max_size=16)),
        draw(ids),
        draw(hashes),
        draw(hashes),
        role,
        row_start,
        row_start + draw(st.integers(1, 12)),
        tile_start,
        tile_start + draw(st.integers(1, 48)),
    )


@st.composite
def shares(draw: st.DrawFn) -> Linear:
    binding = draw(bindings(Role.SHARE))
    num_inputs = draw(st.integers(0, 9))
    words = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
    return Linear(binding, rows=np.resize(np.array(words, dtype=np.uint32), (binding.num_rows, num_inputs)))


@st.composite
def results(draw: st.DrawFn) -> LinearResult:
    shape = (draw(st.integers(0, 5)), draw(st.integers(0, 5)))
    rows = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape)
    return LinearResult(draw(hashes), draw(st.integers(0, 1 << 62)), rows)


@st.composite
def plain_rows(draw: st.DrawFn) -> TrustedLinear:
    binding = draw(bindings(Role.PLAIN))
    values = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
    return TrustedLinear(binding, np.resize(np.array(values, dtype=np.float32), (binding.num_rows, 3)))


@st.composite
def plain_results(draw: st.DrawFn) -> TrustedResult:
    values = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9))
    return TrustedResult(draw(hashes), draw(st.integers(0, 1 << 62)), np.array([values], dtype=np.int32))


attempts = st.binary(min_size=16, max_size=16)
pairing: st.SearchStrategy[Message] = st.one_of(
    st.builds(PairAsk, attempts, hashes),
    st.builds(PairAnswer, attempts, hashes),
    st.builds(PairReveal, attempts, hashes),
    st.builds(PairConfirm, attempts, st.binary(min_size=64, max_size=64), attempts, st.booleans()),
    st.builds(PairRefuse, attempts, st.sampled_from(PairRefusal)),
    st.builds(Unpair, hashes, st.booleans()),
)

messages: st.SearchStrategy[Message] = st.one_of(
    hellos(Hello),
    hellos(HelloOk),
    st.just(Ping()),
    st.builds(Pong, st.integers(0, 1 << 31)),
    st.builds(GoAway, printable),
    st.just(Attach()),
    st.builds(Cancel, ids),
    st.builds(ErrorReply, small, printable),
    st.builds(Linear, bindings(Role.PAD), hashes),
    shares(),
    results(),
    plain_rows(),
    plain_results(),
    pairing,
    membership,
    dialbacks,
    transfers,
)


def same(first: Message, second: Message) -> bool:
    """Equality that compares arrays by content."""
    if type(first) is not type(second):
        return False
    for name in type(first).__struct_fields__:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
                return False
            if not np.array_equal(one, other):
                return False
        elif one != other:
            return False
    return True


def read(frames: list[Any], max_header: int = MAX_HEADER) -> Received | None:
    """The message, or None where it was refused in the one way that is allowed."""
    try:
        return decode_message(frames, max_header)
    except RemoteProtocolError as exc:
        assert len(str(exc)) < 512
        return None


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


# --- headers


def framed(header: object) -> list[bytes]:
    return [MAGIC + cbor2.dumps(header, canonical=True)]


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


# --- bodies

BINDING = ChunkBinding(bytes(16), 1, bytes(32), bytes(32), Role.SHARE, 0, 2, 0, 1)
ROWS = np.arange(6, dtype=np.uint32).reshape(2, 3)
SHARE = Linear(BINDING, rows=ROWS)
HELLO_BODY = {0: bytes(32), 1: [1], 2: "a", 3: [], 4: 1, 5: [], 6: 1, 7: [1], 8: bytes(16)}
LINEAR_BODY = {0: BINDING.as_list()}
ENTRY = [int(DType.U32), [2, 3], 24]


def with_binding(index: int, value: object) -> dict[int, Any]:
    values: list[Any] = BINDING.as_list()
    values[index] = value
    return {0: values}


BAD_BODIES: list[tuple[int, dict[int, Any], list[Any], list[bytes]]] = [
    *[(MessageType.HELLO, {k: v for k, v in HELLO_BODY.items() if k != key}, [], []) for key in HELLO_BODY],
    *[(MessageType.HELLO, {**HELLO_BODY, key: None}, [], []) for key in HELLO_BODY],
    *[
        (kind, {**HELLO_BODY, key: value}, [], [])
        for kind in (MessageType.HELLO, MessageType.HELLO_OK)
        for key, value in [
            (0, bytes(31)),
            (0, bytes(33)),
            (0, "k" * 32),
            (1, [True]),
            (1, [-1]),
            (1, [65536]),
            (1, [1] * 17),
            (2, "a" * 65),
            (2, "line\nbreak"),
            (2, "\x1b[31m"),
            (2, "\u202eabc"),
            (3, ["a"] * 9),
            (3, ["a" * 257]),
            (3, [1]),
            (4, True),
            (4, 65536),
            (4, -1),
            (5, [[bytes(32), []]] * 9),
            (5, [[bytes(32)]]),
            (5, [[bytes(31), []]]),
            (5, [[bytes(32), [bytes(31)]]]),
            (5, [[bytes(32), [b""] * 1025]]),
            (5, [5]),
            (6, (1 << 62) + 1),
            (6, 1.0),
            (7, [1] * 17),
            (8, bytes(15)),
        ]
    ],
    (MessageType.PONG, {}, [], []),
    (MessageType.PONG, {0: True}, [], []),
    (MessageType.PONG, {0: (1 << 31) + 1}, [], []),
    (MessageType.GOAWAY, {0: b"bytes"}, [], []),
    (MessageType.GOAWAY, {0: "x" * 257}, [], []),
    (MessageType.CANCEL, {0: -1}, [], []),
    (MessageType.ERROR, {0: 1}, [], []),
    (MessageType.ERROR, {0: 65536, 1: ""}, [], []),
    # A share request
    (MessageType.LINEAR, LINEAR_BODY, [], []),
    (MessageType.LINEAR, {}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, {0: BINDING.as_list()[:8]}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, {0: [*BINDING.as_list(), 0]}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, {**LINEAR_BODY, 1: bytes(32)}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[4, [2, 3], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[8, [2, 3], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [6], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [2, 3, 1], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [3, 2], 24]], [bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [ENTRY, ENTRY], [bytes(24), bytes(24)]),
    (MessageType.LINEAR, LINEAR_BODY, [[5, [2, 65537], 8 * 65537]], [bytes(8 * 65537)]),
    *[
        (MessageType.LINEAR, with_binding(index, value), [ENTRY], [bytes(24)])
        for index, value in [
            (0, bytes(15)),
            (0, None),
            (1, -1),
            (1, True),
            (2, bytes(31)),
            (3, bytes(33)),
            (4, 0),
            (4, 3),
            (4, True),
            (5, -1),
            (5, 2),
            (6, 0),
            (6, 513),
            (6, 2.0),
            (7, -1),
            (7, 1),
            (8, 0),
            (8, 2049),
        ]
    ],
    # A pad request
    (MessageType.LINEAR, with_binding(4, 1), [], []),
    (MessageType.LINEAR, {**with_binding(4, 1), 1: bytes(31)}, [], []),
    (MessageType.LINEAR, {**with_binding(4, 1), 1: bytes(32)}, [ENTRY], [bytes(24)]),
    # A result
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [], []),
    (MessageType.LINEAR_RESULT, {0: bytes(31), 1: 0}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: -1}, [ENTRY], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [[4, [2, 3], 24]], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [[5, [6], 24]], [bytes(24)]),
    (MessageType.LINEAR_RESULT, {0: bytes(32), 1: 0}, [ENTRY, ENTRY], [bytes(24), bytes(24)]),
]


@pytest.mark.parametrize("case", BAD_BODIES, ids=lambda case: f"{MessageType(case[0]).name}-{case[1]}"[:60])
def test_a_bad_body_is_refused(case: tuple[int, dict[int, Any], list[Any], list[bytes]]) -> None:
    kind, body, described, buffers = case
    header: dict[int, Any] = {KEY_TYPE: int(kind), KEY_ID: 1, KEY_BODY: body}
    if described:
        header[KEY_BUFFERS] = described
    with pytest.raises(RemoteProtocolError):
        decode_message([*framed(header), *buffers], MAX_HEADER)


def test_the_bodies_that_were_spoilt_are_good_ones() -> None:
    header = {KEY_TYPE: 1, KEY_ID: 1, KEY_BODY: HELLO_BODY}
    assert isinstance(decode_message(framed(header), MAX_HEADER).message, Hello)
    header = {KEY_TYPE: 32, KEY_ID: 1, KEY_BODY: LINEAR_BODY, KEY_BUFFERS: [ENTRY]}
    assert isinstance(decode_message([*framed(header), bytes(24)], MAX_HEADER).message, Linear)
    header = {KEY_TYPE: 32, KEY_ID: 1, KEY_BODY: {**with_binding(4, 1), 1: bytes(32)}}
    assert isinstance(decode_message(framed(header), MAX_HEADER).message, Linear)
    header = {KEY_TYPE: 33, KEY_ID: 1, KEY_BODY: {0: bytes(32), 1: 0}, KEY_BUFFERS: [ENTRY]}
    assert isinstance(decode_message([*framed(header), bytes(24)], MAX_HEADER).message, LinearResult)


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
