"""Pads: never twice the same, uniform, re-cuttable, and nothing of them in a text."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.utils import randombytes_deterministic

from protocol import cbor
from protocol.errors import LocalProtocolError
from protocol.limits import (
    CHUNK_LIMITS,
    MAX_CHUNK_ROWS,
    MAX_DATA_BYTES,
    ROW_BUCKETS,
    max_rows_per_chunk,
    row_bucket,
)
from protocol.linear import shares
from protocol.linear.field import P, elements_of_words
from protocol.linear.shares import PadSeeds, pad_row, pad_rows, row_seed

MASTER = bytes(range(32))
MODEL = hashlib.sha256(b"model").digest()
SEED = hashlib.sha256(b"chunk").digest()
relaxed = settings(deadline=None)

kinds = st.sampled_from(["qkv", "o", "gate_up", "down", "head"])
roles = st.sampled_from(["guard", "own", "filling"])


# --- seeds


@given(st.lists(st.tuples(st.none() | st.integers(0, 80), kinds, roles), min_size=2, max_size=60))
@relaxed
def test_no_seed_comes_twice(calls: list[tuple[int | None, str, str]]) -> None:
    source = PadSeeds(MASTER, MODEL)
    seeds = [source.next(*call) for call in [*calls, *calls]]
    assert len(set(seeds)) == len(seeds)
    assert source.counter == len(seeds)
    assert {len(seed) for seed in seeds} == {32}


def test_everything_that_names_a_chunk_goes_into_its_seed() -> None:
    def first(
        master: bytes = MASTER, model: bytes = MODEL, layer: int | None = 1, kind: str = "o", role: str = "own"
    ):
        return PadSeeds(master, model).next(layer, kind, role)

    variants = [
        first(),
        first(master=bytes(32)),
        first(model=bytes(32)),
        first(layer=2),
        first(layer=None),
        first(kind="qkv"),
        first(role="guard"),
        PadSeeds(MASTER, MODEL, counter=1).next(1, "o", "own"),
    ]
    assert len(set(variants)) == len(variants)
    assert first() == first()


def test_a_counter_is_burnt_even_where_no_seed_came_of_it() -> None:
    source = PadSeeds(MASTER, MODEL)
    with pytest.raises(LocalProtocolError):
        source.next(0, object(), "own")  # type: ignore[arg-type]
    assert source.next(0, "o", "own") == PadSeeds(MASTER, MODEL, counter=1).next(0, "o", "own")


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_master_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        PadSeeds(bytes(size), MODEL).next(0, "o", "own")


def test_a_source_prints_no_secret() -> None:
    source = PadSeeds(MASTER, MODEL)
    seed = source.next(0, "o", "own")
    for text in (repr(source), str(source), f"{source}", f"{[source]}"):
        assert text.strip("[]") == "PadSeeds(counter=1)"
        for secret in (MASTER, seed):
            assert secret.hex() not in text
            assert repr(secret) not in text


# --- rows


@given(st.binary(min_size=32, max_size=32), st.integers(0, 500), st.integers(1, 12), st.integers(1, 70), st.data())
@relaxed
def test_rows_can_be_cut_again(seed: bytes, start: int, count: int, num_inputs: int, data: st.DataObject) -> None:
    whole = pad_rows(seed, start, start + count, num_inputs)
    cut = data.draw(st.integers(0, count))
    parts = [pad_rows(seed, start, start + cut, num_inputs), pad_rows(seed, start + cut, start + count, num_inputs)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert whole.dtype == np.uint32
    assert whole.shape == (count, num_inputs)
    assert (whole < P).all()


def test_rows_of_one_seed_and_seeds_of_one_row_differ() -> None:
    rows = pad_rows(SEED, 0, MAX_CHUNK_ROWS, 8)
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert row_seed(SEED, 0) != row_seed(SEED, 1) != row_seed(MASTER, 1)
    assert row_seed(SEED, 0) != SEED
    assert not np.array_equal(pad_row(SEED, 8), rows[0])


def test_a_pad_is_the_stream_word_by_word() -> None:
    words = np.frombuffer(randombytes_deterministic(4 * 1000, SEED), dtype="<u4")
    assert np.array_equal(pad_row(SEED, 1000), words & 0x7FFFFFFF)
    expected = hashlib.blake2b(cbor.encode([3]), key=SEED, digest_size=32, person=b"kek/1 pad row").digest()
    assert row_seed(SEED, 3) == expected


class CraftedStream:
    """A keystream that was written down; asked for more than there is, it is zero."""

    def __init__(self, words: list[int]) -> None:
        self.bytes = b"".join(struct.pack("<I", word) for word in words)
        self.asked: list[int] = []

    def __call__(self, size: int, seed: bytes) -> bytes:
        self.asked.append(size)
        return self.bytes.ljust(size, b"\0")[:size]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([P, 5, 6, 7], [5, 6, 7]),
        ([5, P, 6, P | 1 << 31, 7], [5, 6, 7]),
        ([5, 6, P, 8, 9], [5, 6, 8]),
        ([1 << 31, P - 1, P - 1 | 1 << 31], [0, P - 1, P - 1]),
        ([0xFFFFFFFF] * 40 + [1, 2, 3], [1, 2, 3]),
    ],
)
def test_the_one_rejected_value_is_skipped_in_order(
    words: list[int], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = CraftedStream(words)
    monkeypatch.setattr(shares, "randombytes_buf_deterministic", stream)
    assert pad_row(SEED, 3).tolist() == expected
    assert stream.asked[0] == 12
    assert stream.asked == sorted(stream.asked)
    assert pad_rows(SEED, 0, 2, 3).tolist() == [expected, expected]


def test_words_lose_their_top_bit_and_nothing_else() -> None:
    words = np.array([0, 1, P - 1, P, P + 1, 0xFFFFFFFE, 0xFFFFFFFF], dtype="<u4")
    assert elements_of_words(words).tolist() == [0, 1, P - 1, 0, P - 1]


def test_pads_are_uniform_in_their_high_and_low_bytes() -> None:
    """Chi-square of 2^20 elements over 128 and 256 cells; the bound is 8 sigma, which biased ones miss by far."""
    elements = np.concatenate([pad_row(row_seed(SEED, index), 1 << 14) for index in range(64)])
    biased = (elements.astype(np.uint64) * 3 // 2 % P).astype(np.uint32)  # a third of the range comes twice as often
    for shift, cells in ((0, 256), (8, 256), (16, 256), (24, 128)):
        assert abs(deviation(elements >> shift, cells)) < 8
    assert abs(deviation(biased >> 24, 128)) > 8
    assert abs(deviation(elements % 251, 256)) > 8


def deviation(values: np.ndarray, cells: int) -> float:
    """How far the chi-square of the lowest `cells` values lies from its mean, in standard deviations."""
    counts = np.bincount(values.astype(np.int64) & (cells - 1), minlength=cells)
    expected = len(values) / cells
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    return (chi_square - (cells - 1)) / (2 * (cells - 1)) ** 0.5


def test_shares_of_very_different_rows_look_alike() -> None:
    from node.kernels.portable import PortableKernels

    pads = pad_rows(SEED, 0, 64, 1 << 12)
    for rows in (np.zeros_like(pads, dtype=np.int16), np.full(pads.shape, 2047, np.int16)):
        share = PortableKernels().share(rows, pads)
        for shift, cells in ((0, 256), (16, 256), (24, 128)):
            assert abs(deviation(share.ravel() >> shift, cells)) < 8


# --- sizes


def test_every_row_count_has_the_smallest_bucket() -> None:
    for num_rows in range(1, MAX_CHUNK_ROWS + 1):
        bucket = row_bucket(num_rows)
        assert bucket in ROW_BUCKETS
        assert bucket >= num_rows
        assert not [smaller for smaller in ROW_BUCKETS if num_rows <= smaller < bucket]


@pytest.mark.parametrize(
    ("num_inputs", "num_outputs", "rows"),
    [
        (256, 256, 512),
        (4096, 4096, 512),
        (4096, 4097, 128),
        (4096, 28672, 32),  # gate_up of 8B
        (14336, 4096, 128),  # down of 8B
        (8192, 10240, 128),  # qkv of 70B
        (8192, 8192, 128),
        (8192, 57344, 32),  # gate_up of 70B
        (28672, 8192, 32),  # down of 70B
        (8192, 128256, 8),  # head of 70B
        (65536, 1 << 20, 1),
    ],
)
def test_chunks_fit_their_message(num_inputs: int, num_outputs: int, rows: int) -> None:
    assert max_rows_per_chunk(num_inputs, num_outputs) == rows
    assert rows * 4 * max(num_inputs, num_outputs) <= MAX_DATA_BYTES
    larger = [limit for limit in CHUNK_LIMITS if limit > rows]
    assert not larger or larger[0] * 4 * max(num_inputs, num_outputs) > MAX_DATA_BYTES


def test_a_stirred_master_depends_on_the_old_one_and_on_the_fresh_bytes() -> None:
    drawn = set()
    for master, fresh in ((MASTER, bytes(32)), (MASTER, bytes(31) + b"1"), (bytes(32), bytes(32))):
        source = PadSeeds(master, MODEL, counter=7)
        source.stir(fresh)
        assert source.counter == 7
        drawn.add(source.next(0, "o", "own"))
    assert len(drawn) == 3 and PadSeeds(MASTER, MODEL, counter=7).next(0, "o", "own") not in drawn
    with pytest.raises(LocalProtocolError, match="32 fresh bytes"):
        PadSeeds(MASTER, MODEL).stir(b"few")
