"""The form check against the plain, slow way (decode, encode again, compare), and what a hostile frame may cost."""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from node.model.config import MAX_LAYERS
from node.model.unit import UnitRef
from node.store.library import Library
from node.store.manifest import MAX_MANIFEST_BYTES, REQUIRED_FILES, Manifest, unit_places
from protocol import cbor
from protocol.cbor_form import MAX_DEPTH, MAX_KEYS_AND_FLOATS
from protocol.errors import RemoteProtocolError
from protocol.limits import MAX_BUFFERS, MAX_CONTROL_FRAME_BYTES, MAX_HOSTED_MODELS
from protocol.link.hello import Hello, HostedModel
from protocol.membership.messages import (
    MAX_DIGEST_ENTRIES,
    MAX_MESSAGE_CLAIMS,
    MAX_MESSAGE_RECORDS,
    Claim,
    Digest,
    DigestEntry,
    Gossip,
    State,
    SyncOk,
)

LIMIT_S = 0.010
"""For any frame of 64 KiB, in processor time of this thread: whoever else uses the machine does not count."""
relaxed = settings(deadline=None, max_examples=500)


# --- the slow way


def refuse_tag(*_: object) -> None:
    raise ValueError("a tag")


class EveryTag(dict[int, Any]):
    """cbor2 asks this for each tag that it knows."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: int) -> Any:
        return refuse_tag

    def get(self, key: int, default: Any = None) -> Any:
        return refuse_tag


def slowly(data: bytes) -> Any:
    """The value of `data` as it was decoded before there was a form check, or ValueError."""
    options: dict[str, Any] = {"allow_indefinite": False, "allow_duplicate_keys": False, "tag_hook": refuse_tag}
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, semantic_decoders=EveryTag(), **options)
        again = cbor2.dumps(value, canonical=True)
    except Exception as exc:
        raise ValueError("refused") from exc
    if again != data:
        raise ValueError("another encoding")
    if not all(type(key) in (int, str) for key in keys_in(value)):
        raise ValueError("a key of another kind: SPEC.md section 4")
    return value


def keys_in(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for entry in value:
            yield from keys_in(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from keys_in(entry)


def same(left: Any, right: Any) -> bool:
    """Equal, and equal in kind: nan is nan, 1 is not True."""
    return cbor2.dumps(left, canonical=True) == cbor2.dumps(right, canonical=True)


def check_against_the_slow_way(data: bytes) -> None:
    try:
        expected = slowly(data)
    except ValueError:
        with pytest.raises(RemoteProtocolError):
            cbor.decode(data, 1 << 16)
    else:
        assert same(cbor.decode(data, 1 << 16), expected)


# --- the same bytes are taken as before

scalars = (
    st.integers(-(1 << 64), (1 << 64) - 1)
    | st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, -1, -24, -25, -256, -257])
    | st.binary(max_size=30)
    | st.text(max_size=30)
    | st.booleans()
    | st.none()
    | st.floats()
    | st.floats(width=32)
    | st.floats(width=16)
)
int_or_text = st.integers(-(1 << 64), (1 << 64) - 1) | st.text(max_size=30)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(int_or_text, inner, max_size=5),
    max_leaves=20,
)
heads = st.sampled_from(
    [bytes([initial]) for initial in range(256)]
    + [bytes([major << 5 | 24, number]) for major in range(8) for number in (0, 1, 2, 23, 24, 31, 32, 255)]
    + [bytes([major << 5 | 25]) + struct.pack(">H", number) for major in range(8) for number in (0, 3, 255, 256)]
    + [bytes([major << 5 | 26]) + struct.pack(">I", number) for major in range(8) for number in (0, 65535, 65536)]
    + [bytes([major << 5 | 27]) + struct.pack(">Q", number) for major in range(8) for number in (0, 1 << 32)]
    + [struct.pack(">Be", 0xF9, number) for number in (0.0, -0.0, 1.0, 6e-8, math.inf, math.nan)]
    + [struct.pack(">Bf", 0xFA, number) for number in (0.0, -0.0, 1.0, 65504.0, 65536.0, 1e-45, math.inf, math.nan)]
    + [struct.pack(">Bd", 0xFB, number) for number in (0.0, -0.0, 0.1, 1e300, 2.0**127, 5e-324, math.inf, math.nan)]
)


@given(st.binary(max_size=24))
@relaxed
def test_any_bytes(data: bytes) -> None:
    check_against_the_slow_way(data)


@given(st.lists(heads, max_size=12).map(b"".join))
@relaxed
def test_heads_in_any_order(data: bytes) -> None:
    check_against_the_slow_way(data)


@given(values)
@relaxed
def test_what_is_encoded_is_taken(value: Any) -> None:
    data = cbor.encode(value)
    check_against_the_slow_way(data)
    if len(list(keys_in(value))) < MAX_KEYS_AND_FLOATS:
        try:
            assert same(cbor.decode(data, 1 << 16), value)
        except RemoteProtocolError as exc:
            assert "deep" in str(exc)


@given(values, st.data())
@relaxed
def test_what_is_encoded_and_then_changed(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(cbor.encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded)))
        cut = data.draw(st.integers(0, 2))
        encoded[at : at + cut] = data.draw(st.binary(max_size=2) | heads)
    check_against_the_slow_way(bytes(encoded))


def head(major: int, argument: int) -> bytes:
    """A head in its shortest form."""
    if argument < 24:
        return bytes([major << 5 | argument])
    size = next(size for size in (1, 2, 4, 8) if argument < 1 << 8 * size)
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + argument.to_bytes(size, "big")


@pytest.mark.parametrize("initial", range(256))
def test_every_initial_byte_with_whatever_may_follow(initial: int) -> None:
    for tail in (b"", b"\x00", b"\x18", b"\x20", b"\xff", bytes(8), b"\x00" * 7 + b"\x01", b"\xff" * 8, b"\x80" * 32):
        for data in (
            bytes([initial]) + tail,
            b"\x81" + bytes([initial]) + tail,
            b"\xa1\x00" + bytes([initial]) + tail,
        ):
            check_against_the_slow_way(data)
        check_against_the_slow_way(b"\xa1" + bytes([initial]) + tail + b"\x00")


@pytest.mark.parametrize("wrap", [b"\x81", b"\xa1\x00", b"\x82\x00", b"\xa2\x00\x00\x01"])
@pytest.mark.parametrize("core", [b"\x00", b"\x80", b"\xa0", b"\x81\x80", b"\x60"])
def test_depth_is_the_same(wrap: bytes, core: bytes) -> None:
    for depth in range(MAX_DEPTH + 3):
        check_against_the_slow_way(wrap * depth + core)


def test_keys_of_other_kinds_are_refused() -> None:
    """A tuple of -1 and -2 hashes like any other such tuple: 64 KiB of them kept the decoder busy for seconds."""
    for key in (b"\x81\x20", b"\xa0", b"\x80", b"\x41a", b"\xf4", b"\xf6", b"\xf9\x3c\x00", b"\xe0"):
        with pytest.raises(RemoteProtocolError, match="key that is neither"):
            cbor.decode(b"\xa1" + key + b"\x00", 100)


# --- what honest messages need


def num_items(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(num_items(key) + num_items(entry) for key, entry in value.items())
    return 1 + sum(map(num_items, value)) if isinstance(value, list) else 1


def filled(make: Callable[[int], Any], most: int) -> Any:
    """The message of the most entries that still fits a control frame."""
    fitting = [n for n in (most, *range(most - 1, 0, -8)) if size_of(make(n)) <= MAX_CONTROL_FRAME_BYTES]
    return make(fitting[0])


def envelope(message: Any) -> dict[int, Any]:
    buffers = [[1, [1, 1, 1, 1], 1]] * MAX_BUFFERS
    return {0: 1 << 31, 1: (1 << 64) - 1, 4: message.to_body(), 5: buffers}


def size_of(message: Any) -> int:
    return 4 + len(cbor.encode(envelope(message)))


def largest_hello() -> Hello:
    def make(count: int) -> Hello:
        units = tuple(n.to_bytes(32, "big") for n in range(count))
        hosted = [HostedModel(bytes(32), units[at : at + 1024]) for at in range(0, count, 1024)]
        hosted += [HostedModel(bytes(32), ())] * (MAX_HOSTED_MODELS - len(hosted))
        texts = ("/ip4/1.2.3.4/tcp/4711",) * 8
        wide = (65535,) * 16
        return Hello(bytes(32), wide, "a", texts, 1, tuple(hosted), 1 << 62, wide, bytes(16), bytes(32))

    return filled(make, 1888)  # type: ignore[no-any-return]


def largest_sync() -> SyncOk:
    """As many items as fit the frame: the smallest legal entries of every kind."""

    def make(count: int) -> SyncOk:
        digest = Digest(bytes(32), None, (DigestEntry(bytes(32), 0, bytes(8)),) * min(count, MAX_DIGEST_ENTRIES))
        claims = (Claim(bytes(32), 0, State.DEAD, bytes(32)),) * min(
            MAX_MESSAGE_CLAIMS, max(0, count - MAX_DIGEST_ENTRIES)
        )
        return SyncOk(digest, (b"",) * MAX_MESSAGE_RECORDS, claims)

    return filled(make, MAX_DIGEST_ENTRIES + MAX_MESSAGE_CLAIMS)  # type: ignore[no-any-return]


def largest_gossip() -> Gossip:
    claims = (Claim(bytes(32), (1 << 63) - 1, State.DEAD, bytes(32)),) * MAX_MESSAGE_CLAIMS
    return Gossip((bytes(150),) * MAX_MESSAGE_RECORDS, claims)


@pytest.mark.parametrize("largest", [largest_hello, largest_sync, largest_gossip])
def test_the_largest_messages_are_read(largest: Callable[[], Any]) -> None:
    message = largest()
    header = envelope(message)
    assert num_items(header) <= 5800, "what MAX_ITEMS says of the largest"
    assert len(list(keys_in(header))) <= MAX_KEYS_AND_FLOATS // 4
    data = cbor.encode(header)
    assert type(message).from_body(cbor.decode(data, MAX_CONTROL_FRAME_BYTES)[4]) == message


def test_the_bound_on_items_is_exact() -> None:
    for many in (b"\x00", b"\x41a", b"\x80", b"\x19\x01\x00"):
        inside = head(4, cbor.MAX_ITEMS - 1) + many * (cbor.MAX_ITEMS - 1)
        assert len(cbor.decode(inside, 1 << 16)) == cbor.MAX_ITEMS - 1
        with pytest.raises(RemoteProtocolError, match="more than 6144 items"):
            cbor.decode(head(4, cbor.MAX_ITEMS) + many * cbor.MAX_ITEMS, 1 << 16)
    keys = b"".join(head(0, key) + b"\x00" for key in range(MAX_KEYS_AND_FLOATS))
    assert len(cbor.decode(head(5, MAX_KEYS_AND_FLOATS) + keys, 1 << 16)) == MAX_KEYS_AND_FLOATS
    with pytest.raises(RemoteProtocolError, match="more than 256 keys and floats"):
        cbor.decode(b"\x82\xf9\x3c\x00" + head(5, MAX_KEYS_AND_FLOATS) + keys, 1 << 16)


def test_items_are_counted_before_any_is_built() -> None:
    """The announced number alone is refused, though none of the items came."""
    for major in (4, 5):
        with pytest.raises(RemoteProtocolError, match="cut off"):
            cbor.decode(head(major, 1 << 40), 1 << 16)


def test_manifests_have_a_bound_of_their_own(tmp_path: Path) -> None:
    """One of as many layers as there may be is read."""
    stored = Library(tmp_path).resolve("story")
    config = replace(stored.config, num_layers=MAX_LAYERS)
    units = tuple(UnitRef(layer, kind, *config.unit_shape(kind), bytes(32)) for layer, kind in unit_places(config))
    manifest = Manifest(config, units, {name: bytes(32) for name in REQUIRED_FILES})
    data = manifest.encode()
    assert Manifest.decode(data, "a large model") == manifest
    with pytest.raises(RemoteProtocolError, match="more than 6144 items"):
        cbor.decode(data, MAX_MANIFEST_BYTES)


# --- what a hostile frame costs


def spread(count: int, item: bytes) -> bytes:
    """A list of as many items as fit 64 KiB, `count` at most."""
    count = min(count, (MAX_CONTROL_FRAME_BYTES - 5) // len(item))
    return head(4, count) + item * count


def of_maps(depth: int, width: int) -> bytes:
    """Maps in maps."""
    inner = of_maps(depth - 1, width) if depth else b"\xa0"
    return head(5, width) + b"".join(head(0, key) + inner for key in range(width))


def map_of(keys: list[bytes]) -> bytes:
    ordered = sorted(keys, key=lambda key: (len(key), key))
    return head(5, len(ordered)) + b"".join(key + b"\x00" for key in ordered)


SAME_HASH = [head(0, 0)] + [head(sign, n * ((1 << 61) - 1) - sign) for n in range(1, 9) for sign in (0, 1)]
"""Integers that Python puts into one place of a dict."""
ALIKE = [head(4, 12) + bytes(0x20 + (number >> bit & 1) for bit in range(12)) for number in range(4000)]
"""Lists of -1 and -2, whose tuples have one hash."""
N = cbor.MAX_ITEMS - 1
FRAMES = {
    "empty maps": spread(1 << 16, b"\xa0"),
    "maps 6 deep": spread(1 << 16, b"\xa1\x00" * 6 + b"\xa0"),
    "maps of maps": of_maps(6, 4),
    "wide maps": of_maps(0, 16000),
    "lists 7 deep": spread(1 << 16, b"\x81" * 6 + b"\x80"),
    "tiny integers": spread(1 << 16, b"\x00"),
    "strings of 1 byte": spread(1 << 16, b"\x41a"),
    "texts of 1 byte": spread(1 << 16, b"\x61a"),
    "floats": spread(1 << 16, b"\xf9\x3c\x00"),
    "keys": map_of([head(0, key) for key in range(13000)]),
    "keys of one hash": spread(1 << 16, map_of(SAME_HASH)),
    "lists of one hash as keys": map_of(ALIKE),
    "a text": head(3, 65000) + "é".encode() * 32500,
    "a string": head(2, 65000) + bytes(65000),
    "most empty maps": spread(N, b"\xa0"),
    "most lists 7 deep": spread(N // 8, b"\x81" * 7 + b"\x00"),
    "most lists": spread(N // 2, b"\x81\x00"),
    "most integers": spread(N, b"\x00"),
    "most long integers": spread(N, b"\x1b" + b"\x01" * 8),
    "most strings": spread(N, b"\x46abcdef"),
    "most long strings": spread(N, head(2, 24) + bytes(24)),
    "most texts": spread(N, b"\x66" + "äöü".encode()),
    "most keys": map_of([head(3, 200) + b"%0200d" % key for key in range(MAX_KEYS_AND_FLOATS)]),
    "most keys of one hash": spread(MAX_KEYS_AND_FLOATS // len(SAME_HASH), map_of(SAME_HASH)),
    "most floats": spread(MAX_KEYS_AND_FLOATS, struct.pack(">Bd", 0xFB, 2.0**200)),
}


def processor_s(data: bytes) -> float:
    """Least processor time of five: what else runs on the machine does not count."""
    times = []
    for _ in range(5):
        started = time.thread_time()
        with contextlib.suppress(RemoteProtocolError):
            cbor.decode(data, MAX_CONTROL_FRAME_BYTES)
        times.append(time.thread_time() - started)
    return min(times)


@pytest.mark.parametrize("name", FRAMES)
def test_no_frame_keeps_the_decoder_busy(name: str) -> None:
    assert len(FRAMES[name]) <= MAX_CONTROL_FRAME_BYTES
    assert processor_s(FRAMES[name]) < LIMIT_S


def test_time_is_linear_in_bytes() -> None:
    """Four times the items take about four times as long; an eightfold would be another law."""
    for item in (b"\xa0", b"\x81\x00", b"\x19\x01\x00", b"\x46abcdef"):
        few = processor_s(spread(1000, item))
        assert processor_s(spread(4000, item)) < 8 * few
