"""The exactness test that a backend must pass before it is used, at every start.

A backend that computes wrongly (a compiler's error, a faulty chip, a bad driver) would send wrong results to others,
or make honest peers look like liars. Expected values come only from Python's integers or int64.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from node.kernels.interface import ACTIVATION_LIMIT, PRIME, Int64s, Kernels
from protocol.linear.field import Elements, Weights

BLOCK_CROSSING: Final = 16_385
"""One input more than the longest block that any backend sums before it reduces."""
SHAPES: Final = ((1, 1, 1), (7, 67, 3), (37, 200, 9))
"""(N, K, T) with no dimension a multiple of a vector or a tile."""


def self_test(kernels: Kernels) -> str | None:
    """Why the backend must be refused; None if it is exact."""
    random = np.random.default_rng(2**31 - 1)  # fixed: a failure is reproducible
    for check in (_linear_extremes, _linear_random, _field_products, _elementwise):
        try:
            failure = check(kernels, random)
        except Exception as error:  # a backend that raises is refused like one that computes wrongly
            failure = f"{type(error).__name__}: {error}"
        if failure is not None:
            return f"{kernels.name} failed its self-test: {failure}"
    return None


Check = Callable[[Kernels, np.random.Generator], str | None]


def _product(weights: Weights, rows: Int64s) -> Int64s:
    """rows @ weights.T mod p in int64: residues times int8 over at most 16 385 inputs stay below 2^53."""
    return (rows @ weights.T.astype(np.int64)) % PRIME


def _linear_extremes(kernels: Kernels, random: np.random.Generator) -> str | None:
    """All weights, activations and elements at their largest, across the end of a block."""
    weights = np.full((2, BLOCK_CROSSING), 127, np.int8)
    weights[1] = -127
    elements = np.full((1, BLOCK_CROSSING), PRIME - 1, np.uint32)
    expected = np.array([[-127 * BLOCK_CROSSING % PRIME, 127 * BLOCK_CROSSING % PRIME]])
    if not np.array_equal(kernels.linear_field(weights, elements), expected):
        return f"linear_field of the largest elements over {BLOCK_CROSSING} inputs"
    num_inputs = (PRIME // 2) // (127 * ACTIVATION_LIMIT)  # the largest sum that the caller's bound allows
    extreme = np.full((1, num_inputs), ACTIVATION_LIMIT, np.int16)
    expected = 127 * ACTIVATION_LIMIT * num_inputs * np.array([[1, -1]])
    for rows, sign in ((extreme, 1), (-extreme, -1)):
        if not np.array_equal(kernels.linear_a12(weights[:, :num_inputs].copy(), rows), sign * expected):
            return "linear_a12 of the largest activations"
    return None


def _linear_random(kernels: Kernels, random: np.random.Generator) -> str | None:
    """Random values in shapes that end inside vectors and tiles."""
    for num_outputs, num_inputs, num_rows in (*SHAPES, (3, BLOCK_CROSSING, 1)):
        weights = random.integers(-127, 128, (num_outputs, num_inputs), np.int8)
        elements = random.integers(0, PRIME, (num_rows, num_inputs), np.uint32)
        activations = random.integers(-1, 2, (num_rows, num_inputs), np.int16) * np.int16(ACTIVATION_LIMIT)
        shape = f"{num_rows} rows by {num_outputs} x {num_inputs} weights"
        expected = _product(weights, elements.astype(np.int64))
        if not np.array_equal(kernels.linear_field(weights, elements), expected):
            return f"linear_field of {shape}"
        if not np.array_equal(
            kernels.linear_a12(weights, activations) % PRIME, _product(weights, activations.astype(np.int64))
        ):
            return f"linear_a12 of {shape}"
    return None


def _field_products(kernels: Kernels, random: np.random.Generator) -> str | None:
    """The products of verification, with the largest elements among random ones."""
    vectors = random.integers(0, PRIME, (3, 37), np.uint32)
    rows = random.integers(0, PRIME, (5, 37), np.uint32)
    coefficients = random.integers(0, PRIME, (3, 5), np.uint32)
    weights = random.integers(-127, 128, (37, 70), np.int8)
    vectors[0], rows[0], coefficients[0] = PRIME - 1, PRIME - 1, PRIME - 1
    pairs = (
        ("field_combine", kernels.field_combine(coefficients, rows), coefficients, rows),
        ("field_project", kernels.field_project(vectors, weights), vectors, weights),
    )
    for name, found, left, right in pairs:
        if not np.array_equal(found, (left.astype(object) @ right.astype(object)) % PRIME):
            return name
    inputs = random.integers(0, PRIME, (2, 70), np.uint32)
    outputs = _product(weights, inputs.astype(np.int64)).astype(np.uint32)
    projections = (vectors.astype(object) @ weights.astype(object) % PRIME).astype(np.uint32)
    wrong, beyond = outputs.copy(), outputs.copy()
    wrong[1, -1] = (int(wrong[1, -1]) + 1) % PRIME
    beyond[1, 0] += PRIME  # the same residue
    judged = [kernels.dots_agree(vectors, found, projections, inputs) for found in (outputs, wrong, beyond)]
    return None if judged == [True, False, False] else "dots_agree"


def _elementwise(kernels: Kernels, random: np.random.Generator) -> str | None:
    """Shares and their merging, at the ends of every range."""
    edges: Elements = np.array([[0, 1, PRIME // 2, PRIME // 2 + 1, PRIME - 2, PRIME - 1] * 7], np.uint32)
    small = np.array([[-ACTIVATION_LIMIT, -1, 0, 1, 2, ACTIVATION_LIMIT] * 7], np.int16)[:, ::-1].copy()
    if not np.array_equal(kernels.share(small, edges), (small - edges.astype(np.int64)) % PRIME):
        return "share"
    merged = (edges.astype(np.int64) + edges[:, ::-1]) % PRIME
    if not np.array_equal(kernels.merge(edges, edges[:, ::-1].copy()), _nearest_zero(merged)):
        return "merge"
    if not np.array_equal(kernels.centre(edges), _nearest_zero(edges.astype(np.int64))):
        return "centre"
    beyond = [np.array([0] * 40 + [value], np.uint32) for value in (PRIME, PRIME + 1, 2**32 - 1)]
    if not kernels.all_canonical(edges) or any(kernels.all_canonical(elements) for elements in beyond):
        return "all_canonical"
    return None


def _nearest_zero(residues: Int64s) -> Int64s:
    return np.where(residues > PRIME // 2, residues - PRIME, residues)
