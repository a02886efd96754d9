"""Every backend and level against Python's integers: exact, over odd shapes and at the ends of every range."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.kernels import Kernels, every_backend
from node.kernels.interface import ACTIVATION_LIMIT, PRIME
from node.kernels.native import NativeKernels

BACKENDS = every_backend()
each_backend = pytest.mark.parametrize("kernels", BACKENDS, ids=lambda kernels: kernels.name)
sizes = st.tuples(st.integers(1, 70), st.integers(1, 300), st.integers(0, 9), st.integers(0, 2**32 - 1))


def exact(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """left @ right in Python's integers."""
    product: NDArray[Any] = left.astype(object) @ right.astype(object)
    return product


def elements(random: np.random.Generator, *shape: int) -> NDArray[np.uint32]:
    """Random elements, with one in four at an end of the range."""
    values = random.integers(0, PRIME, shape, np.uint32)
    ends = random.choice(np.array([0, 1, PRIME // 2, PRIME // 2 + 1, PRIME - 2, PRIME - 1], np.uint32), shape)
    return np.where(random.random(shape) < 0.25, ends, values)


def int8_weights(random: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return random.integers(-127, 128, shape, np.int8)


def activations(random: np.random.Generator, *shape: int) -> NDArray[np.int16]:
    return random.integers(-ACTIVATION_LIMIT, ACTIVATION_LIMIT + 1, shape, np.int16)


@each_backend
@settings(max_examples=40, deadline=None)
@given(size=sizes)
def test_linear_layers_are_exact_in_any_shape(kernels: Kernels, size: tuple[int, int, int, int]) -> None:
    num_outputs, num_inputs, num_rows, seed = size
    random = np.random.default_rng(seed)
    weights = int8_weights(random, num_outputs, num_inputs)
    field_rows, small_rows = elements(random, num_rows, num_inputs), activations(random, num_rows, num_inputs)
    field_sums, small_sums = kernels.linear_field(weights, field_rows), kernels.linear_a12(weights, small_rows)
    assert field_sums.dtype == np.uint32 and small_sums.dtype == np.int32
    assert np.array_equal(field_sums, exact(field_rows, weights.T) % PRIME)
    assert np.array_equal(small_sums, exact(small_rows, weights.T))


@each_backend
@pytest.mark.parametrize("num_inputs", [1024, 2048, 4096, 4097, 16_384, 16_385, 28_672, 57_344, 65_536])
def test_long_contractions_of_the_largest_values(kernels: Kernels, num_inputs: int) -> None:
    weights = np.full((5, num_inputs), 127, np.int8)
    weights[1], weights[3] = -127, int8_weights(np.random.default_rng(num_inputs), num_inputs)
    rows = np.full((3, num_inputs), PRIME - 1, np.uint32)
    rows[1], rows[2] = PRIME // 2, PRIME // 2 + 1
    expected = rows.astype(np.int64) @ weights.T.astype(np.int64) % PRIME  # below 2^31 * 2^7 * 2^16 < 2^63
    assert np.array_equal(kernels.linear_field(weights, rows), expected)
    small = np.full((2, num_inputs), 64, np.int16)  # 127 * 64 * 65 536 < p / 2
    small[1] = -64
    expected = small.astype(np.int64) @ weights.T.astype(np.int64)
    assert np.array_equal(kernels.linear_a12(weights, small), expected)


@each_backend
def test_the_largest_activations_up_to_the_callers_bound(kernels: Kernels) -> None:
    num_inputs = PRIME // 2 // (127 * ACTIVATION_LIMIT)
    weights = np.full((4, num_inputs), 127, np.int8)
    weights[1::2] = -127
    rows = np.full((6, num_inputs), ACTIVATION_LIMIT, np.int16)
    rows[1::2] = -ACTIVATION_LIMIT
    expected = rows.astype(np.int64) @ weights.T.astype(np.int64)
    assert abs(expected).max() < PRIME / 2
    assert np.array_equal(kernels.linear_a12(weights, rows), expected)


@each_backend
def test_a_weight_of_minus_128_stays_exact(kernels: Kernels) -> None:
    weights = np.full((3, 5000), -128, np.int8)
    rows = elements(np.random.default_rng(5), 2, 5000)
    assert np.array_equal(kernels.linear_field(weights, rows), exact(rows, weights.T) % PRIME)


@pytest.mark.parametrize("num_rows", [1, 2, 33, 150])
def test_every_backend_and_number_of_threads_agrees_on_larger_layers(num_rows: int) -> None:
    random = np.random.default_rng(num_rows)
    weights = int8_weights(random, 515, 4200)
    field_rows, small_rows = elements(random, num_rows, 4200), activations(random, num_rows, 4200) // 8
    expected = small_rows.astype(np.int64) @ weights.T.astype(np.int64)
    expected_field = BACKENDS[-1].linear_field(weights, field_rows)
    for kernels in [*BACKENDS[:-1], *every_backend(threads=2)]:
        assert np.array_equal(kernels.linear_a12(weights, small_rows), expected), kernels.name
        assert np.array_equal(kernels.linear_field(weights, field_rows), expected_field), kernels.name


@each_backend
@settings(max_examples=30, deadline=None)
@given(size=sizes)
def test_products_of_verification(kernels: Kernels, size: tuple[int, int, int, int]) -> None:
    num_outputs, num_inputs, num_rows, seed = size
    random = np.random.default_rng(seed)
    num_vectors = 1 + seed % 5
    weights = int8_weights(random, num_outputs, num_inputs)
    vectors, rows = elements(random, num_vectors, num_outputs), elements(random, num_rows, num_outputs)
    coefficients = elements(random, num_vectors, num_rows)
    assert np.array_equal(kernels.field_project(vectors, weights), exact(vectors, weights) % PRIME)
    projected = kernels.field_project(vectors, weights)
    inputs = elements(random, num_rows, num_inputs)
    outputs = (exact(inputs, weights.T) % PRIME).astype(np.uint32)
    assert kernels.dots_agree(vectors, outputs, projected, inputs)
    if outputs.size:
        place = seed % outputs.size
        wrong, beyond = outputs.copy(), outputs.copy()
        wrong.flat[place] = (int(wrong.flat[place]) + 1 + seed % (PRIME - 1)) % PRIME
        beyond.flat[place] += PRIME
        told = [bool(vector[place % num_outputs]) for vector in vectors]
        assert kernels.dots_agree(vectors, wrong, projected, inputs) == (not any(told))
        assert not kernels.dots_agree(vectors, beyond, projected, inputs)
    combined = kernels.field_combine(coefficients, rows)
    assert np.array_equal(combined, exact(coefficients, rows) % PRIME if num_rows else np.zeros_like(combined))


@each_backend
def test_long_products_of_the_largest_elements(kernels: Kernels) -> None:
    vectors = np.full((3, 70_001), PRIME - 1, np.uint32)  # (-1) (-1) = 1 mod p, so sums count their terms
    ones = np.ones((2, 1), np.uint32)
    for told in (70_000, 70_001, 70_002):
        agrees = kernels.dots_agree(vectors, vectors[:2].copy(), np.full((3, 1), told, np.uint32), ones)
        assert agrees == (told == 70_001)
    coefficients, rows = np.full((3, 600), PRIME - 1, np.uint32), np.full((600, 1030), PRIME - 1, np.uint32)
    assert np.array_equal(kernels.field_combine(coefficients, rows), np.full((3, 1030), 600))
    weights = np.full((70_001, 3), -127, np.int8)
    assert np.array_equal(kernels.field_project(vectors, weights), np.full((3, 3), 127 * 70_001))


@each_backend
@pytest.mark.parametrize("shape", [(4, 1024), (5, 1025), (9, 2049), (32_769, 5)])
def test_projection_across_blocks(kernels: Kernels, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(7)
    vectors, weights = elements(random, 4, shape[0]), int8_weights(random, *shape)
    expected = vectors.astype(np.int64) @ weights.astype(np.int64) % PRIME
    assert np.array_equal(kernels.field_project(vectors, weights), expected)


@each_backend
@settings(max_examples=30, deadline=None)
@given(num_rows=st.integers(0, 4), width=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_shares_merge_to_what_was_shared(kernels: Kernels, num_rows: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, pads = activations(random, num_rows, width), elements(random, num_rows, width)
    shares = kernels.share(rows, pads)
    assert np.array_equal(shares, (rows - pads.astype(np.int64)) % PRIME)
    assert np.array_equal(kernels.merge(shares, pads), rows)
    assert kernels.all_canonical(shares)
    centred = kernels.centre(pads)
    assert np.array_equal(centred % PRIME, pads) and (2 * np.abs(centred.astype(np.int64)) < PRIME).all()


@each_backend
@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**32 - 1])
def test_elements_that_are_not_canonical_are_found_anywhere(kernels: Kernels, value: int) -> None:
    for place in (0, 17, 99):
        row = np.full((1, 100), PRIME - 1, np.uint32)
        assert kernels.all_canonical(row)
        row[0, place] = value
        assert not kernels.all_canonical(row)
        with pytest.raises(ValueError):
            kernels.linear_field(np.ones((1, 100), np.int8), row)


@each_backend
@pytest.mark.parametrize("value", [ACTIVATION_LIMIT + 1, -ACTIVATION_LIMIT - 1, -(2**15)])
def test_activations_beyond_12_bits_are_refused(kernels: Kernels, value: int) -> None:
    rows = np.zeros((2, 40), np.int16)
    rows[1, 39] = value
    with pytest.raises(ValueError):
        kernels.linear_a12(np.ones((1, 40), np.int8), rows)


def test_reading_sums_every_word_once() -> None:
    words = np.random.default_rng(8).integers(0, 2**64, 1_000_003, np.uint64)
    expected = int(np.add.reduce(words)) % 2**64
    for kernels in [*BACKENDS, *every_backend(threads=2)]:
        if isinstance(kernels, NativeKernels):
            assert kernels.read_sum(words) == expected
