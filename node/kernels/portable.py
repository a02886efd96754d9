"""The backend that needs no compiler: it uses only numpy, and is exact through float64 matrix products.

A float64 sum of products is exact while it stays below 2^53, so BLAS may add in any order. It is the reference for
tests of the C kernels, and is used if no C compiler was found. Float code handles one contiguous row at a time where
the order of additions could matter, and never uses BLAS.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.kernels import checks
from node.kernels.interface import (
    ACTIVATION_LIMIT,
    PRIME,
    SCALE_MARGIN,
    Activation,
    Int16s,
    Int64s,
    NativeFunctions,
    NotFiniteError,
)
from node.kernels.layers import LayerParts, LayerShape
from protocol.linear.field import Elements, Floats, Sums, Weights

Doubles = NDArray[np.float64]

# Implementation.
CONTRACTION_BLOCK: Final = 16_384
"""Inputs summed before a reduction: 128 (p - 1) n < 2^53 allows n <= 32 768; half of it leaves room."""
BLOCK_ELEMENTS: Final = 1 << 22
"""Number of weights that are widened to float64 at a time: 32 MiB, whatever the size of the unit."""


class PortableKernels:
    """`Kernels` in numpy."""

    name = "portable"

    keeps_weights = False
    functions: NativeFunctions | None = None

    def __init__(self, threads: int = 1, note: str | None = None) -> None:
        self.threads = threads
        self.note = note

    # ---- linear layers ----

    def linear_a12(self, weights: Weights, rows: Int16s) -> Sums:
        weights, rows = checks.linear(weights, rows, np.int16)
        if rows.size and max(int(rows.max()), -int(rows.min())) > ACTIVATION_LIMIT:
            raise ValueError(f"rows hold a value beyond {ACTIVATION_LIMIT}")
        sums = np.zeros((rows.shape[0], weights.shape[0]), np.int32)
        for outputs, inputs in _blocks(weights.shape):
            product = _exact_product(rows[:, inputs], weights[outputs, inputs].T)
            sums[:, outputs] += product.astype(np.int32)
        return sums

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        weights, rows = checks.linear(weights, rows, np.uint32)
        if not self.all_canonical(rows):
            raise ValueError("rows hold an element that is not below p")
        sums = np.zeros((rows.shape[0], weights.shape[0]), np.int64)
        for outputs, inputs in _blocks(weights.shape):
            sums[:, outputs] += _exact_product(rows[:, inputs], weights[outputs, inputs].T) % PRIME
        return (sums % PRIME).astype(np.uint32)

    # ---- the field ----

    def share(self, rows: Int16s, pads: Elements) -> Elements:
        rows, pads = checks.twins(rows, pads, ("rows", "pads"), np.int16)
        return ((rows.astype(np.int64) - pads) % PRIME).astype(np.uint32)

    def merge(self, first: Elements, second: Elements) -> Sums:
        first, second = checks.twins(first, second, ("first", "second"), np.uint32)
        return _centred((first.astype(np.int64) + second) % PRIME)

    def centre(self, elements: Elements) -> Sums:
        return _centred(checks.array(elements, "elements", np.uint32, 2).astype(np.int64))

    def dots_agree(self, vectors: Elements, outputs: Elements, projections: Elements, inputs: Elements) -> bool:
        vectors, outputs, projections, inputs = checks.dots(vectors, outputs, projections, inputs)
        canonical = self.all_canonical(outputs)
        safe = outputs if canonical else np.zeros_like(outputs)
        left, right = _residue_product(safe, vectors.T), _residue_product(inputs, projections.T)
        return bool(np.array_equal(left, right)) and canonical

    def field_combine(self, coefficients: Elements, rows: Elements) -> Elements:
        coefficients, rows = checks.combination(coefficients, rows)
        combined = np.empty((coefficients.shape[0], rows.shape[1]), np.uint32)
        for columns in _spans(rows.shape[1], max(1, BLOCK_ELEMENTS // max(1, rows.shape[0]))):
            combined[:, columns] = _residue_product(coefficients, rows[:, columns])
        return combined

    def field_project(self, vectors: Elements, weights: Weights) -> Elements:
        vectors, weights = checks.projection(vectors, weights)
        sums = np.zeros((vectors.shape[0], weights.shape[1]), np.int64)
        for outputs, inputs in _blocks(weights.shape):
            sums[:, inputs] += _exact_product(vectors[:, outputs], weights[outputs, inputs]) % PRIME
        return (sums % PRIME).astype(np.uint32)

    def all_canonical(self, elements: Elements) -> bool:
        elements = checks.array(elements, "elements", np.uint32)
        return bool(np.all(elements < PRIME))

    # ---- floats ----

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[Int16s, Floats]:
        hidden = checks.array(hidden, "hidden", np.float32, 2)
        return _quantized(hidden, checks.row_norm(max_row_norm))

    def norm_quantize(
        self, hidden: Floats, gain: Floats, epsilon: float, max_row_norm: float
    ) -> tuple[Int16s, Floats]:
        return _quantized(self.rms_norm(hidden, gain, epsilon), checks.row_norm(max_row_norm))

    def gated_quantize(
        self, gate_up: Floats, max_row_norm: float, activation: Activation = "silu"
    ) -> tuple[Int16s, Floats]:
        return _quantized(self.gated(gate_up, activation), checks.row_norm(max_row_norm))

    def gated(self, gate_up: Floats, activation: Activation = "silu") -> Floats:
        gate_up = checks.gated(gate_up)
        width = gate_up.shape[1] // 2
        gated = np.empty((gate_up.shape[0], width), np.float32)
        with np.errstate(all="ignore"):  # exp may give infinity; quantize refuses such rows by number
            for row, result in zip(gate_up, gated, strict=True):
                gate = row[:width].copy()
                exponent = gate if activation == "silu" else _gelu_exponent(gate)
                np.multiply(gate / (np.float32(1.0) + np.exp(-exponent)), row[width:], out=result)
        return gated

    def fused_layers(self, layers: Sequence[LayerParts], shape: LayerShape) -> None:
        return None

    def softcap(self, values: Floats, limit: float) -> Floats:
        values = checks.softcap(values, limit)
        capped = np.empty_like(values)
        for row, result in zip(values, capped, strict=True):
            np.multiply(np.tanh(row / np.float32(limit)), np.float32(limit), out=result)
        return capped

    def dequantize(self, sums: Sums, row_scales: Floats, weight_scales: Floats, bias: Floats | None) -> Floats:
        sums, row_scales, weight_scales, bias = checks.dequantization(sums, row_scales, weight_scales, bias)
        values = (sums.astype(np.float32) * weight_scales) * row_scales[:, None]
        if bias is not None:
            values += bias
        return values

    def rms_norm(self, hidden: Floats, gain: Floats, epsilon: float) -> Floats:
        hidden, gain = checks.norm(hidden, gain)
        normed = np.empty_like(hidden)
        with np.errstate(all="ignore"):  # non-finite rows pass through; quantize refuses them by number
            for row, result in zip(hidden, normed, strict=True):
                mean_square = np.square(row, dtype=np.float64).sum() / max(1, row.size)
                np.multiply(row * np.float32(1.0 / np.sqrt(mean_square + epsilon)), gain, out=result)
        return normed

    def rope(self, heads: Floats, cos: Floats, sin: Floats) -> None:
        heads, cos, sin = checks.rotation(heads, cos, sin)
        half = cos.shape[1]
        first, second = heads[:, :, :half].copy(), heads[:, :, half : 2 * half].copy()
        heads[:, :, :half] = first * cos[:, None, :] - second * sin[:, None, :]
        heads[:, :, half : 2 * half] = second * cos[:, None, :] + first * sin[:, None, :]

    def attention(
        self,
        queries: Floats,
        keys: Floats,
        values: Floats,
        positions: Int64s,
        window: int | None,
        scale: float,
        softcap: float | None = None,
    ) -> Floats:
        queries, keys, values, positions = checks.attention(queries, keys, values, positions, window, softcap)
        num_rows, num_heads, head_size = queries.shape
        heads_per_group = num_heads // keys.shape[0]
        mixed = np.empty((num_rows, num_heads, head_size), np.float32)
        for t, position in enumerate(positions.tolist()):
            first_slot = 0 if window is None else max(0, position + 1 - window)
            for h in range(num_heads):
                slots = (h // heads_per_group, slice(first_slot, position + 1))
                mixed[t, h] = _attend(queries[t, h], keys[slots], values[slots], scale, softcap)
        return mixed.reshape(num_rows, num_heads * head_size)


def _spans(size: int, step: int) -> Iterator[slice]:
    """Half-open pieces of at most `step` that cover `size`."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Blocks of a weight matrix [N, K], short enough for exact sums along either axis."""
    for inputs in _spans(shape[1], CONTRACTION_BLOCK):
        height = BLOCK_ELEMENTS // (inputs.stop - inputs.start)
        for outputs in _spans(shape[0], min(CONTRACTION_BLOCK, height)):
            yield outputs, inputs


def _exact_product(left: NDArray[np.generic], right: NDArray[np.generic]) -> Int64s:
    """left @ right through float64; the caller keeps every sum of magnitudes below 2^53."""
    product: Doubles = left.astype(np.float64) @ right.astype(np.float64)
    return product.astype(np.int64)


def _residue_product(left: Elements, right: Elements) -> Elements:
    """left @ right mod p of canonical elements, from 16-bit halves of both: exact for 2^20 terms."""
    left_low, left_high = left & 0xFFFF, left >> 16
    right_low, right_high = right & 0xFFFF, right >> 16
    high = _exact_product(left_high, right_high) % PRIME
    middle = (_exact_product(left_high, right_low) + _exact_product(left_low, right_high)) % PRIME
    low = _exact_product(left_low, right_low)
    return ((high * 2 + (middle << 16) + low) % PRIME).astype(np.uint32)  # 2^32 = 2 mod p


def _centred(residues: Int64s) -> Sums:
    """Canonical residues as the integers nearest to zero."""
    return np.where(residues > PRIME // 2, residues - PRIME, residues).astype(np.int32)


def _quantized(values: Floats, max_row_norm: float) -> tuple[Int16s, Floats]:
    """The quantization rule of `Kernels.quantize`; only exact reductions, so rows may share numpy calls."""
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise NotFiniteError(int(np.argmin(finite)))
    largest = np.abs(values).max(axis=1, initial=0.0)
    scales = largest / np.float32(ACTIVATION_LIMIT)
    scales[scales == 0.0] = 1.0
    rounded = _rounded(values, scales)
    for t in range(values.shape[0]):
        while (excess := _bound_ratio(rounded[t], max_row_norm)) >= 1.0:
            grown = np.float32(np.float64(scales[t]) * (excess * SCALE_MARGIN))
            # Subnormal scales are so coarse that the product may be rounded back to what it was.
            scales[t] = max(grown, np.nextafter(scales[t], np.float32(np.inf)))
            rounded[t] = _rounded(values[t : t + 1], scales[t : t + 1])[0]
    return rounded, scales


def _rounded(values: Floats, scales: Floats) -> Int16s:
    """rint(x / s), half to even, clipped to 12 bits: [T, K], [T] -> [T, K]."""
    with np.errstate(over="ignore"):  # a subnormal scale is rounded so coarsely that x / s may overflow
        quotients = values / scales[:, None]
    rounded: Floats = np.rint(np.clip(quotients, -ACTIVATION_LIMIT, ACTIVATION_LIMIT))
    return rounded.astype(np.int16)


def _bound_ratio(row: Int16s, max_row_norm: float) -> float:
    """The Cauchy-Schwarz bound on |W x| over p / 2; below 1 no sum can leave the field's centred range."""
    square = int(np.square(row, dtype=np.int64).sum())
    return float(max_row_norm * np.sqrt(np.float64(square)) / (PRIME / 2))


def _gelu_exponent(gate: Floats) -> Floats:
    """z of gelu(x) = x / (1 + e^-z): twice the argument of the tanh in its usual form (rows.h says why)."""
    exponent: Floats = (gate + gate * gate * gate * np.float32(0.044715)) * np.float32(1.5957691216057308)
    return exponent


def _attend(query: Floats, keys: Floats, values: Floats, scale: float, softcap: float | None) -> Floats:
    """One head of one row: query [d], keys and values [s, d] -> [d]; sums in float64."""
    scores = np.einsum("sd,d->s", keys.astype(np.float64), query.astype(np.float64)) * scale
    if softcap is not None:
        scores = np.tanh(scores / softcap) * softcap
    weights = np.exp(scores - scores.max())
    mixed: Doubles = np.einsum("s,sd->d", weights, values.astype(np.float64)) / weights.sum()
    return mixed.astype(np.float32)
