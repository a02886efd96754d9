"""The worker: exact for seeds and shares, any slice, and an error for everything else a peer can ask."""

import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import KERNELS, MODEL_ID, make_unit, weights_of
from msgspec.structs import replace

from node.errors import CorruptModelError, ModelError
from node.kernels.delegating import DelegatingKernels
from node.serving.worker import LinearWorker
from protocol.codec import encode_message
from protocol.limits import ROW_BUCKETS, TILE_OUTPUTS
from protocol.linear.field import P, elements_of_integers
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.linear.quick import share_header, share_rows
from protocol.linear.shares import pad_rows
from protocol.linear.verification import UnitCheck, passes_gate, result_digest
from protocol.message import ErrorCode, ErrorReply

relaxed = settings(deadline=None, max_examples=60)
UNIT = make_unit(2 * TILE_OUTPUTS + 76, 12)
SEED = bytes(range(32))
WORKER = LinearWorker(KERNELS, weights_of([UNIT]))
BINDING = ChunkBinding(bytes(16), 1, MODEL_ID, UNIT.ref.sha256, Role.SHARE, 0, 1, 0, 3)
GENERATOR = np.random.default_rng(5)


def share_of(num_rows: int = 1, num_inputs: int = 12, **binding: Any) -> Linear:
    rows = GENERATOR.integers(0, P, (num_rows, num_inputs), dtype=np.uint32)
    return Linear(replace(BINDING, row_end=num_rows, **binding), rows=rows)


def product(rows: np.ndarray, tile_start: int = 0, tile_end: int = 3) -> np.ndarray:
    """`W b` mod p in Python's own integers."""
    weights = UNIT.weights[tile_start * TILE_OUTPUTS : tile_end * TILE_OUTPUTS].astype(object)
    return (rows.astype(object) @ weights.T % P).astype(np.uint32)


def refusal(request: Linear, worker: LinearWorker = WORKER) -> ErrorReply:
    answer = worker.answer(request)
    assert isinstance(answer, ErrorReply), answer
    return answer


# --- what it computes


@pytest.mark.parametrize("tiles", [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)])
@pytest.mark.parametrize("num_rows", [1, 3, 8, 128])
def test_a_share_is_multiplied_exactly(num_rows: int, tiles: tuple[int, int]) -> None:
    request = share_of(num_rows, tile_start=tiles[0], tile_end=tiles[1])
    answer = WORKER.answer(request)
    assert isinstance(answer, LinearResult)
    assert request.rows is not None
    assert np.array_equal(answer.rows, product(request.rows, *tiles))
    assert answer.digest == result_digest(request.binding, answer.rows)
    assert answer.compute_us >= 0


@given(st.binary(min_size=32, max_size=32), st.integers(0, 400), st.integers(1, 20))
@relaxed
def test_a_seed_stands_for_its_rows(seed: bytes, row_start: int, num_rows: int) -> None:
    binding = replace(BINDING, role=Role.PAD, row_start=row_start, row_end=row_start + num_rows)
    by_seed = WORKER.answer(Linear(binding, seed=seed))
    rows = pad_rows(seed, row_start, row_start + num_rows, 12)
    by_rows = WORKER.answer(Linear(replace(binding, role=Role.SHARE), rows=rows))
    assert isinstance(by_seed, LinearResult) and isinstance(by_rows, LinearResult)
    assert np.array_equal(by_seed.rows, by_rows.rows)
    assert np.array_equal(by_seed.rows, product(rows))
    assert by_seed.digest != by_rows.digest


def test_extreme_elements() -> None:
    for value in (0, 1, P - 1):
        request = Linear(BINDING, rows=np.full((1, 12), value, np.uint32))
        answer = WORKER.answer(request)
        assert isinstance(answer, LinearResult) and request.rows is not None
        assert np.array_equal(answer.rows, product(request.rows))


def test_rows_may_lie_anywhere_in_a_frame() -> None:
    """A received buffer need not be aligned, and cannot be written."""
    for offset in range(4):
        rows = np.frombuffer(bytes(offset) + SEED * 2, dtype="<u4", offset=offset, count=12).reshape(1, 12) & 0
        frame = np.frombuffer(bytes(64), dtype=np.uint8)[offset : offset + 48].view("<u4").reshape(1, 12)
        for given_rows in (rows, frame):
            answer = WORKER.answer(Linear(BINDING, rows=given_rows))
            assert isinstance(answer, LinearResult)
            assert not answer.rows.any()


def test_it_keeps_nothing() -> None:
    request = share_of()
    first, _other, again = WORKER.answer(request), WORKER.answer(share_of(8)), WORKER.answer(request)
    assert isinstance(first, LinearResult) and isinstance(again, LinearResult)
    assert first.digest == again.digest


# --- what it refuses


def test_units_that_it_does_not_hold() -> None:
    for other in ({"model_id": bytes(32)}, {"unit": bytes(32)}):
        assert refusal(share_of(**other)).code == ErrorCode.NOT_FOUND
        assert refusal(Linear(replace(BINDING, role=Role.PAD, **other), seed=SEED)).code == ErrorCode.NOT_FOUND


@pytest.mark.parametrize("tiles", [(0, 4), (3, 4), (2, 2048), (2047, 2048)])
def test_tiles_that_the_unit_does_not_have(tiles: tuple[int, int]) -> None:
    assert refusal(share_of(tile_start=tiles[0], tile_end=tiles[1])).code == ErrorCode.INVALID


@pytest.mark.parametrize("num_inputs", [0, 1, 11, 13, 24])
def test_rows_of_another_width(num_inputs: int) -> None:
    assert refusal(share_of(num_inputs=num_inputs)).code == ErrorCode.INVALID


def test_another_number_of_rows_than_bound() -> None:
    assert refusal(replace(share_of(2), binding=BINDING)).code == ErrorCode.INVALID
    assert refusal(Linear(BINDING)).code == ErrorCode.INVALID


@pytest.mark.parametrize("value", [P, P + 1, 0xFFFFFFFF])
@pytest.mark.parametrize("place", [(0, 0), (7, 11)])
def test_an_element_that_is_not_canonical(value: int, place: tuple[int, int]) -> None:
    request = share_of(8)
    assert request.rows is not None
    request.rows[place] = value
    assert refusal(request).code == ErrorCode.INVALID


def test_more_rows_than_a_chunk_may_have() -> None:
    wide = make_unit(4, 65_536)
    worker = LinearWorker(KERNELS, weights_of([wide]))
    binding = ChunkBinding(bytes(16), 1, MODEL_ID, wide.ref.sha256, Role.PAD, 0, 32, 0, 1)
    assert isinstance(worker.answer(Linear(binding, seed=SEED)), LinearResult)
    for num_rows in (33, 128, 512):
        assert refusal(Linear(replace(binding, row_end=num_rows), seed=SEED), worker).code == ErrorCode.EXHAUSTED
    assert 32 in ROW_BUCKETS


def unreadable_weights(model_id: bytes, unit: bytes) -> np.ndarray | None:
    raise CorruptModelError("/home/somebody/secret/place is damaged")


def test_a_unit_that_cannot_be_read_is_not_the_peers_business() -> None:
    answer = refusal(share_of(), LinearWorker(KERNELS, unreadable_weights))
    assert answer.code == ErrorCode.UNAVAILABLE
    assert "somebody" not in answer.text


# --- rows as they are, for a device of the same owner


def row_norm_of(model_id: bytes, unit: bytes) -> float | None:
    return UNIT.max_row_norm if (model_id, unit) == (MODEL_ID, UNIT.ref.sha256) else None


TRUSTED = LinearWorker(KERNELS, weights_of([UNIT]), row_norm_of)
PLAIN = replace(BINDING, role=Role.PLAIN)


def plain_of(num_rows: int, **binding: Any) -> TrustedLinear:
    rows = GENERATOR.standard_normal((num_rows, 12), np.float32) * np.float32(7)
    return TrustedLinear(replace(PLAIN, row_end=num_rows, **binding), rows)


@pytest.mark.parametrize("tiles", [(0, 3), (1, 2), (2, 3)])
@pytest.mark.parametrize("num_rows", [1, 4, 32])
def test_plain_rows_are_quantized_as_everywhere_and_multiplied_exactly(num_rows: int, tiles: tuple[int, int]) -> None:
    request = plain_of(num_rows, tile_start=tiles[0], tile_end=tiles[1])
    answer = TRUSTED.answer(request)
    assert isinstance(answer, TrustedResult)
    rounded, _scales = KERNELS.quantize(request.rows, UNIT.max_row_norm)
    part = UNIT.weights[tiles[0] * TILE_OUTPUTS : tiles[1] * TILE_OUTPUTS].astype(np.int64)
    assert np.array_equal(answer.sums, rounded.astype(np.int64) @ part.T)
    assert answer.digest == result_digest(request.binding, answer.sums)
    check = UnitCheck.of(UNIT.weights, KERNELS, secrets.token_bytes)
    inputs = elements_of_integers(rounded)
    assert passes_gate(request.binding, inputs, answer, check, KERNELS, secrets.token_bytes)


LIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one more": lambda sums: sums + np.eye(*sums.shape, dtype=np.int32),
    "p more, which is the same element": lambda sums: np.where(sums < 0, sums + P, sums - P).astype(np.int32),
    "negated": lambda sums: -sums,
    "nothing": np.zeros_like,
    "the lowest of all": lambda sums: np.full_like(sums, -(2**31)),
    "a row less": lambda sums: sums[1:],
    "another order": lambda sums: np.ascontiguousarray(sums[::-1]),
}


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("num_rows", [2, 8])
def test_a_lie_about_plain_rows_does_not_pass(name: str, num_rows: int) -> None:
    request = plain_of(num_rows)
    honest = TRUSTED.answer(request)
    assert isinstance(honest, TrustedResult)
    sums = LIES[name](honest.sums)
    lie = TrustedResult(result_digest(request.binding, sums), 1, sums)
    check = UnitCheck.of(UNIT.weights, KERNELS, secrets.token_bytes)
    inputs = elements_of_integers(KERNELS.quantize(request.rows, UNIT.max_row_norm)[0])
    assert not passes_gate(request.binding, inputs, lie, check, KERNELS, secrets.token_bytes)
    rebound = replace(honest, digest=result_digest(replace(request.binding, nonce=2), honest.sums))
    assert not passes_gate(request.binding, inputs, rebound, check, KERNELS, secrets.token_bytes)


def test_plain_rows_that_cannot_be_used() -> None:
    def refused(request: TrustedLinear, worker: LinearWorker = TRUSTED) -> ErrorReply:
        answer = worker.answer(request)
        assert isinstance(answer, ErrorReply)
        return answer

    infinite = plain_of(2)
    infinite.rows[1, 3] = np.inf
    narrow = TrustedLinear(PLAIN, np.zeros((1, 11), np.float32))
    assert refused(infinite).code == refused(narrow).code == ErrorCode.INVALID
    assert refused(plain_of(1, unit=bytes(32))).code == ErrorCode.NOT_FOUND
    assert refused(plain_of(1), WORKER).code == ErrorCode.NOT_FOUND, "a worker that knows no norms"
    assert refused(plain_of(1, tile_end=4)).code == ErrorCode.INVALID


# --- long requests


@pytest.mark.parametrize("role", [Role.SHARE, Role.PAD])
def test_a_long_request_is_computed_in_parts(role: Role) -> None:
    """The same numbers and the same digest, however it is cut."""
    unit = make_unit(TILE_OUTPUTS * 5 + 7, 64)
    share = np.random.default_rng(3).integers(0, P, (70, 64), dtype=np.uint32)
    tiles = -(-unit.ref.num_outputs // TILE_OUTPUTS)
    binding = ChunkBinding(b"s" * 16, 1, MODEL_ID, unit.ref.sha256, role, 0, 70, 0, tiles)
    request = Linear(binding, seed=SEED) if role is Role.PAD else Linear(binding, rows=share)
    whole = LinearWorker(KERNELS, weights_of([unit])).answer(request)
    assert isinstance(whole, LinearResult)
    for macs_per_part, num_pauses in ((1, 17), (2 * 64 * TILE_OUTPUTS * 32, 6), (unit.weights.size * 64, 1)):
        worker = LinearWorker(KERNELS, weights_of([unit]))
        worker._macs_per_s, worker.part_s = float(macs_per_part), 1.0
        parts = worker.parts(request)
        for _ in range(num_pauses):
            next(parts)
        with pytest.raises(StopIteration) as finished:
            next(parts)
        cut = finished.value.value
        assert isinstance(cut, LinearResult)
        assert np.array_equal(whole.rows, cut.rows) and whole.digest == cut.digest


def test_plain_rows_are_computed_in_parts_too() -> None:
    request = plain_of(100)
    whole = TRUSTED.answer(request)
    cut = LinearWorker(KERNELS, weights_of([UNIT]), row_norm_of)
    cut.part_s = 0.0  # every tile of every 32 rows is a part
    parts = cut.parts(request)
    for _ in range(11):
        next(parts)
    with pytest.raises(StopIteration) as finished:
        next(parts)
    answer = finished.value.value
    assert isinstance(whole, TrustedResult) and isinstance(answer, TrustedResult)
    assert np.array_equal(whole.sums, answer.sums) and whole.digest == answer.digest


def test_a_late_row_is_looked_at_as_well() -> None:
    request = share_of(100)
    assert request.rows is not None
    request.rows[99, 3] = P
    worker = LinearWorker(KERNELS, weights_of([UNIT]))
    worker.part_s = 0.0
    assert refusal(request, worker).code == ErrorCode.INVALID


class Keeping(DelegatingKernels):
    """Notes which weights it is given, as a backend does that keeps them on a device."""

    def __init__(self) -> None:
        super().__init__(KERNELS)
        self.keeps_weights = True
        self.given: set[tuple[int, tuple[int, ...]]] = set()

    def linear_field(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        self.given.add((weights.ctypes.data, weights.shape))
        return super().linear_field(weights, rows)


def test_a_backend_that_keeps_weights_is_given_them_whole() -> None:
    kernels = Keeping()
    worker = LinearWorker(kernels, weights_of([UNIT]))
    worker.part_s = 1e-9  # parts as small as they get
    request = share_of(200)
    answer = worker.answer(request)
    assert isinstance(answer, LinearResult) and request.rows is not None
    assert np.array_equal(answer.rows, product(request.rows))
    assert kernels.given == {(UNIT.weights.ctypes.data, UNIT.weights.shape)}


def test_a_unit_may_be_without_weights() -> None:
    """A client that holds none of them still knows what a unit is; computing it here is refused with its name."""
    elsewhere = replace(UNIT, held=None)
    assert elsewhere.ref == UNIT.ref and np.array_equal(elsewhere.scales, UNIT.scales)
    with pytest.raises(ModelError, match=f"the weights of unit {UNIT.ref.name} are not here"):
        _ = elsewhere.weights


# --- at once


def at_once(request: Linear, worker: LinearWorker = WORKER, most_s: float = 1.0) -> LinearResult | None:
    header, frame = encode_message(request, request.binding.nonce)
    share = share_header(bytes(header))
    rows = None if share is None else share_rows(share, frame)
    assert share is not None and rows is not None
    product = worker.product(share, rows, most_s)
    return None if product is None else product[0]


@pytest.mark.parametrize("tiles", [(0, 1), (1, 3), (0, 3)])
@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_a_share_that_is_answered_at_once_gets_the_same_answer(num_rows: int, tiles: tuple[int, int]) -> None:
    request = share_of(num_rows, nonce=1 << 40, tile_start=tiles[0], tile_end=tiles[1])
    quick, usual = at_once(request), WORKER.answer(request)
    assert quick is not None and isinstance(usual, LinearResult)
    assert np.array_equal(quick.rows, usual.rows) and quick.digest == usual.digest


class Full(DelegatingKernels):
    """A device whose memory is used up."""

    def linear_field(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        raise MemoryError("nothing is left")


def test_a_failure_is_left_to_the_usual_way_which_answers_it() -> None:
    worker, request = LinearWorker(Full(KERNELS), weights_of([UNIT])), share_of(nonce=1 << 40)
    assert at_once(request, worker) is None
    assert refusal(request, worker).code == ErrorCode.INTERNAL


def test_what_cannot_be_answered_at_once_is_left_to_the_usual_way() -> None:
    usual = share_of(nonce=1 << 40)
    assert at_once(usual) is not None
    assert at_once(usual, most_s=0.0) is None, "it takes too long"
    assert at_once(share_of(nonce=1 << 40, tile_end=4)) is None, "the unit has fewer tiles"
    assert at_once(share_of(nonce=1 << 40, unit=bytes(32))) is None, "it is not here"
    assert at_once(share_of(1, 11, nonce=1 << 40)) is None, "rows of another length"
    beyond = replace(usual, rows=np.full((1, 12), P, np.uint32))
    assert at_once(beyond) is None and refusal(beyond).code == ErrorCode.INVALID
    unreadable = LinearWorker(KERNELS, unreadable_weights)
    assert at_once(usual, unreadable) is None and refusal(usual, unreadable).code == ErrorCode.UNAVAILABLE
    cut = LinearWorker(KERNELS, weights_of([UNIT]))
    cut.part_s = 1e-9
    assert at_once(share_of(64, nonce=1 << 40), cut) is None, "it takes several parts"
