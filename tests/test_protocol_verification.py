"""The gate lets the exact product through and nothing else, and does the same work whatever it sees."""

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from node.kernels import select_kernels
from node.kernels.interface import Kernels
from node.kernels.portable import PortableKernels
from protocol import cbor
from protocol.limits import FREIVALDS_VECTORS, TILE_OUTPUTS
from protocol.linear.field import P
from protocol.linear.messages import ChunkBinding, LinearResult, Role
from protocol.linear.verification import UnitCheck, freivalds, passes_gate, random_elements, result_digest

NUM_OUTPUTS, NUM_INPUTS = 2 * TILE_OUTPUTS + 76, 40
KERNELS = select_kernels(1)
GENERATOR = np.random.default_rng(7)
WEIGHTS = GENERATOR.integers(-127, 128, (NUM_OUTPUTS, NUM_INPUTS), dtype=np.int8)
CHECK = UnitCheck.of(WEIGHTS, KERNELS, secrets.token_bytes)
BINDING = ChunkBinding(b"s" * 16, 5, b"m" * 32, b"u" * 32, Role.SHARE, 0, 1, 0, 3)
ROWS = (1, 3, 4, 8, 128)
SLICES = ((0, 3), (0, 1), (1, 3), (2, 3))


def elements(*shape: int) -> np.ndarray:
    return GENERATOR.integers(0, P, shape, dtype=np.uint32)


def case(num_rows: int, tiles: tuple[int, int] = (0, 3)) -> tuple[ChunkBinding, np.ndarray, np.ndarray]:
    """A binding, the share and the honest product."""
    binding = replace(BINDING, row_end=num_rows, tile_start=tiles[0], tile_end=tiles[1])
    inputs = elements(num_rows, NUM_INPUTS)
    part = WEIGHTS[tiles[0] * TILE_OUTPUTS : tiles[1] * TILE_OUTPUTS]
    return binding, inputs, KERNELS.linear_field(part, inputs)


def judge(
    binding: ChunkBinding,
    inputs: np.ndarray,
    rows: np.ndarray,
    digest: bytes | None = None,
    check: UnitCheck = CHECK,
    arithmetic: Any = KERNELS,
) -> bool:
    result = LinearResult(result_digest(binding, rows) if digest is None else digest, 1, rows)
    return passes_gate(binding, inputs, result, check, arithmetic, secrets.token_bytes)


def add(rows: np.ndarray, row: int, column: int, difference: int) -> np.ndarray:
    changed = rows.copy()
    changed[row, column] = (int(rows[row, column]) + difference) % P
    return changed


def put(rows: np.ndarray, row: int, values: np.ndarray) -> np.ndarray:
    changed = rows.copy()
    changed[row] = values
    return changed


def moved(values: np.ndarray, column: int, amount: int) -> np.ndarray:
    changed = values.copy()
    changed[column] += np.uint32(amount)
    return changed


FORGERIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first element + 1": lambda rows: add(rows, 0, 0, 1),
    "last element - 1": lambda rows: add(rows, -1, -1, -1),
    "one element at random": lambda rows: add(rows, len(rows) // 2, 3, int(elements(1)[0]) or 1),
    "half of p": lambda rows: add(rows, 0, 1, P // 2),
    "a bit": lambda rows: rows ^ np.uint32(1) * (np.arange(rows.size).reshape(rows.shape) == 5),
    "a row of zeros": lambda rows: put(rows, -1, np.zeros(rows.shape[1], np.uint32)),
    "a row turned": lambda rows: put(rows, 0, np.roll(rows[0], 1)),
    "a row doubled": lambda rows: put(rows, 0, (rows[0].astype(np.uint64) * 2 % P).astype(np.uint32)),
    "all turned": lambda rows: np.roll(rows, 1, axis=1).copy(),
    "columns swapped": lambda rows: rows[:, [1, 0, *range(2, rows.shape[1])]].copy(),
    "all zero": np.zeros_like,
    "noise": lambda rows: elements(*rows.shape),
    "errors that cancel": lambda rows: add(add(rows, 0, 0, 1), -1, 1, -1),
    "negated": lambda rows: ((P - rows.astype(np.int64)) % P).astype(np.uint32),
}
ROW_FORGERIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows swapped": lambda rows: rows[[1, 0, *range(2, len(rows))]].copy(),
    "rows reversed": lambda rows: rows[::-1].copy(),
    "one row twice": lambda rows: put(rows, 0, rows[1]),
    "errors that cancel over rows": lambda rows: add(add(rows, 0, 0, 1), 1, 0, -1),
}
NOT_CANONICAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the right residue, plus p": lambda rows: put(rows, 0, moved(rows[0], 0, P)),
    "p for zero": lambda rows: put(rows, -1, np.full(rows.shape[1], P, np.uint32)),
    "all ones": lambda rows: np.full_like(rows, 0xFFFFFFFF),
}


# --- what is right


@pytest.mark.parametrize("tiles", SLICES)
@pytest.mark.parametrize("num_rows", ROWS)
def test_the_honest_product_passes(num_rows: int, tiles: tuple[int, int]) -> None:
    for _ in range(3):
        assert judge(*case(num_rows, tiles))


@pytest.mark.parametrize("num_rows", ROWS)
def test_extreme_inputs_and_weights_pass(num_rows: int) -> None:
    weights = np.full((NUM_OUTPUTS, NUM_INPUTS), -127, np.int8)
    check = UnitCheck.of(weights, KERNELS, secrets.token_bytes)
    for value in (0, 1, P - 1):
        inputs = np.full((num_rows, NUM_INPUTS), value, np.uint32)
        binding = replace(BINDING, row_end=num_rows)
        assert judge(binding, inputs, KERNELS.linear_field(weights, inputs), check=check)


def test_a_wide_unit_passes() -> None:
    weights = GENERATOR.integers(-127, 128, (8, 33_000), dtype=np.int8)
    check = UnitCheck.of(weights, KERNELS, secrets.token_bytes)
    for num_rows in (1, 8):
        inputs = elements(num_rows, 33_000)
        binding = replace(BINDING, row_end=num_rows, tile_end=1)
        rows = KERNELS.linear_field(weights, inputs)
        assert judge(binding, inputs, rows, check=check)
        assert not judge(binding, inputs, add(rows, 0, 0, 1), check=check)


def test_both_backends_judge_alike() -> None:
    check = UnitCheck.of(WEIGHTS, PortableKernels(), secrets.token_bytes)
    for num_rows in ROWS:
        binding, inputs, rows = case(num_rows)
        for arithmetic in (KERNELS, PortableKernels()):
            assert judge(binding, inputs, rows, check=check, arithmetic=arithmetic)
            assert not judge(binding, inputs, add(rows, 0, 0, 1), check=check, arithmetic=arithmetic)


def test_the_projections_are_the_product() -> None:
    left, right = CHECK.slice(0, 3)
    expected = left.astype(object) @ WEIGHTS.astype(object) % P
    assert (right.astype(object) == expected).all()
    assert left.shape == (FREIVALDS_VECTORS, NUM_OUTPUTS)
    assert FREIVALDS_VECTORS == 3


# --- what is wrong


@pytest.mark.parametrize("tiles", [(0, 3), (1, 3), (2, 3)])
@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("name", [*FORGERIES, *NOT_CANONICAL])
def test_a_forgery_with_its_own_digest_fails(name: str, num_rows: int, tiles: tuple[int, int]) -> None:
    binding, inputs, rows = case(num_rows, tiles)
    forged = {**FORGERIES, **NOT_CANONICAL}[name](rows)
    assert not np.array_equal(forged, rows)
    assert not judge(binding, inputs, forged)


@pytest.mark.parametrize("num_rows", ROWS)
def test_p_is_not_zero(num_rows: int) -> None:
    """Where the honest product is zero, p in its place satisfies every equation and is refused all the same."""
    binding, inputs, rows = case(num_rows)
    inputs, rows = np.zeros_like(inputs), np.zeros_like(rows)
    assert judge(binding, inputs, rows)
    assert not judge(binding, inputs, np.full_like(rows, P))


@pytest.mark.parametrize("num_rows", ROWS[1:])
@pytest.mark.parametrize("name", ROW_FORGERIES)
def test_a_forgery_among_rows_fails(name: str, num_rows: int) -> None:
    binding, inputs, rows = case(num_rows)
    forged = ROW_FORGERIES[name](rows)
    assert not np.array_equal(forged, rows)
    assert not judge(binding, inputs, forged)


def test_every_single_element_counts() -> None:
    for num_rows in (1, 4):
        binding, inputs, rows = case(num_rows, (2, 3))
        for row in range(num_rows):
            for column in range(rows.shape[1]):
                for difference in (1, -1):
                    assert not judge(binding, inputs, add(rows, row, column, difference))


@pytest.mark.parametrize(
    "shape",
    [
        (0, NUM_OUTPUTS),
        (1, NUM_OUTPUTS),
        (3, NUM_OUTPUTS),
        (2, NUM_OUTPUTS - 1),
        (2, NUM_OUTPUTS + 1),
        (2, 0),
        (2, 512),
    ],
)
def test_another_shape_fails(shape: tuple[int, int]) -> None:
    binding, inputs, _rows = case(2)
    assert not judge(binding, inputs, np.zeros(shape, np.uint32))
    padded = np.zeros((2, NUM_OUTPUTS), np.uint32)
    assert not judge(binding, np.zeros_like(inputs), padded.reshape(1, -1))
    assert judge(binding, np.zeros_like(inputs), padded)


OTHER_BINDINGS = {
    "session": {"session": b"t" * 16},
    "nonce": {"nonce": 6},
    "model": {"model_id": b"n" * 32},
    "unit": {"unit": b"v" * 32},
    "role": {"role": Role.PAD},
    "rows": {"row_start": 1, "row_end": 5},
    "tiles": {"tile_start": 1, "tile_end": 4},
}


@pytest.mark.parametrize("name", OTHER_BINDINGS)
def test_the_digest_of_another_request_fails(name: str) -> None:
    binding, inputs, rows = case(4)
    other = replace(binding, **OTHER_BINDINGS[name])  # type: ignore[arg-type]
    assert judge(binding, inputs, rows, result_digest(binding, rows))
    assert not judge(binding, inputs, rows, result_digest(other, rows))


def test_a_digest_of_other_bytes_fails() -> None:
    binding, inputs, rows = case(4)
    honest = result_digest(binding, rows)
    for digest in (
        bytes(32),
        honest[::-1],
        result_digest(binding, add(rows, 0, 0, 1)),
        honest[:31] + bytes([honest[31] ^ 1]),
    ):
        assert not judge(binding, inputs, rows, digest)


def test_the_digest_is_the_one_of_the_specification() -> None:
    binding, _inputs, rows = case(3)
    expected = hashlib.sha256(
        b"kek/1 result" + cbor.encode(binding.as_list()) + rows.astype("<u4").tobytes()
    ).digest()
    assert result_digest(binding, rows) == expected
    assert result_digest(binding, np.asfortranarray(rows)) == expected


def test_the_result_of_another_share_fails() -> None:
    binding, inputs, _rows = case(4)
    _binding, _inputs, of_another = case(4)
    assert not judge(binding, inputs, of_another)


def test_the_result_of_another_slice_fails() -> None:
    binding, inputs, _rows = case(4, (0, 1))
    other = KERNELS.linear_field(WEIGHTS[TILE_OUTPUTS : 2 * TILE_OUTPUTS], inputs)
    assert not judge(binding, inputs, other)


def test_the_result_of_other_weights_fails() -> None:
    binding, inputs, _rows = case(4)
    weights = WEIGHTS.copy()
    weights[700, 20] = np.int8(-weights[700, 20] or 1)
    assert not judge(binding, inputs, KERNELS.linear_field(weights, inputs))


# --- how often it could be wrong


def accepted(check: UnitCheck, weights: np.ndarray, num_forgeries: int) -> int:
    """How many of so many forgeries of every size pass the algebraic check."""
    passed = 0
    for num_rows in (1, 5):
        inputs = elements(num_rows, weights.shape[1])
        honest = KERNELS.linear_field(weights, inputs)
        binding = replace(BINDING, row_end=num_rows, tile_end=1)
        assert freivalds(check, binding, inputs, honest, KERNELS, secrets.token_bytes)
        for index in range(num_forgeries // 2):
            wrong = 1 + index % 3
            places = GENERATOR.integers(0, honest.size, wrong)
            forged = honest.ravel().copy()
            forged[places] = (forged[places].astype(np.uint64) + GENERATOR.integers(1, P, wrong, np.uint64)) % P
            passed += freivalds(check, binding, inputs, forged.reshape(honest.shape), KERNELS, secrets.token_bytes)
    return passed


def test_none_of_twelve_thousand_forgeries_passes() -> None:
    weights = GENERATOR.integers(-127, 128, (24, 16), dtype=np.int8)
    assert accepted(UnitCheck.of(weights, KERNELS, secrets.token_bytes), weights, 12_000) == 0


def test_the_count_would_notice_a_weak_check() -> None:
    """One vector of zeros and ones lets many pass: the test above is not blind."""
    weights = GENERATOR.integers(-127, 128, (24, 16), dtype=np.int8)
    vectors = GENERATOR.integers(0, 2, (1, 24), dtype=np.uint32)
    weak = UnitCheck(vectors, KERNELS.field_project(vectors, weights)[None])
    assert accepted(weak, weights, 1_000) > 100


# --- one bit, after everything was computed


class CountingArithmetic:
    """Passes every call on and remembers which were made, on what shapes."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self.calls: list[tuple[str, tuple[tuple[int, ...], ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arrays: np.ndarray) -> Any:
            self.calls.append((name, tuple(array.shape for array in arrays)))
            return getattr(self._kernels, name)(*arrays)

        return call


@pytest.mark.parametrize("num_rows", ROWS)
def test_a_lie_costs_the_same_work_as_the_truth(num_rows: int) -> None:
    binding, inputs, rows = case(num_rows)

    def calls(forged: np.ndarray, digest: bytes | None = None) -> list[Any]:
        counting = CountingArithmetic(KERNELS)
        judge(binding, inputs, forged, digest, arithmetic=counting)
        return counting.calls

    honest = calls(rows)
    assert "dots_agree" in {name for name, _shapes in honest}
    forgeries = {**FORGERIES, **NOT_CANONICAL, **(ROW_FORGERIES if num_rows > 1 else {})}
    for forge in forgeries.values():
        assert calls(forge(rows)) == honest
        assert calls(forge(rows), bytes(32)) == honest
    assert calls(rows, bytes(32)) == honest


# --- its secrets


def test_the_secrets_are_uniform_and_fresh() -> None:
    drawn = random_elements((3, 50_000), secrets.token_bytes)
    assert (drawn < P).all()
    assert abs(float(drawn.mean()) / P - 0.5) < 0.01
    assert not np.array_equal(UnitCheck.of(WEIGHTS, KERNELS, secrets.token_bytes).vectors, CHECK.vectors)


def test_rejected_words_are_drawn_again() -> None:
    stream = iter([b"\xff" * 8 + b"\x01\0\0\0", b"\xff\xff\xff\x7f" * 16, b"\x02\0\0\0" * 16])
    assert random_elements((1, 3), lambda size: next(stream)).tolist() == [[1, 2, 2]]


def test_combinations_are_drawn_after_the_result_and_never_again() -> None:
    sizes: list[int] = []

    def random_bytes(size: int) -> bytes:
        sizes.append(size)
        return secrets.token_bytes(size)

    for num_rows, drawn in ((1, 0), (3, 0), (4, 2), (128, 2)):
        binding, inputs, rows = case(num_rows)
        sizes.clear()
        for _ in range(2):
            freivalds(CHECK, binding, inputs, rows, KERNELS, random_bytes)
        assert sizes == [4 * FREIVALDS_VECTORS * num_rows] * drawn


def test_a_check_prints_no_secret() -> None:
    assert repr(CHECK) == f"UnitCheck({NUM_OUTPUTS} outputs)"
