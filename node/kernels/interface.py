"""The interface between the model and the arithmetic: what every kernel backend offers.

It has two parts with different guarantees. The integer part is exact: every backend, level and machine returns the
same bits. The float part is row-invariant: row t's bits are the same whatever else is in the batch, wherever the
batch was cut and on any number of threads. Its bits are guaranteed per machine and build, not across backends.

Arrays are numpy and C-contiguous; a wrong dtype, rank or shape is a ValueError. T counts token rows, N output
rows of the weights, K inputs, D the hidden size, H heads, G groups of heads that share keys, S key slots and
d the size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocol.linear.field import Elements, Floats, P, Sums, Weights

if TYPE_CHECKING:
    from node.kernels.layers import FusedLayers, LayerParts, LayerShape

Int16s = NDArray[np.int16]
Int64s = NDArray[np.int64]
Activation = Literal["silu", "gelu_tanh"]
ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)
"""x / (1 + e^-x), and x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (transformers: gelu_pytorch_tanh)."""

# Specification (SPEC.md, arithmetic).
PRIME: Final = P
"""The field F_p; it is a Mersenne prime, so 2^31 = 1 mod p and a reduction is a shift and an addition."""
ACTIVATION_LIMIT: Final = 2**11 - 1
"""Largest magnitude of a quantized activation: 12 bits, symmetric."""
SCALE_MARGIN: Final = 1.0 + 2.0**-10
"""When a row's scale is enlarged, it is multiplied by this in addition, so that the loop ends soon."""
MAX_INPUTS: Final = 65_536
"""Longest contraction K that the linear kernels accept: gate_up of a 70B model is 57 344."""


class NotFiniteError(ValueError):
    """A row cannot be rounded, because one of its values is infinite or not a number; other rows are not affected."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} holds a value that is not finite")
        self.row = row


class NativeFunctions(Struct, frozen=True):
    """Addresses of C functions of a backend, for C code that calls them, and the level that they take first."""

    level: int
    dots_agree: int
    """`kernel_dots_agree` of kernels.c."""
    merge: int
    """`kernel_merge` of kernels.c."""
    share: int
    """`kernel_share` of kernels.c."""
    linear_field: int
    """`kernel_linear_field` of kernels.c,"""
    layer: int
    """`kernel_layer` of layer.h,"""
    team: int
    """and the threads that both take; 0: none but the caller's."""


class Kernels(Protocol):
    """One arithmetic backend; every method may be called from several threads at once."""

    name: str
    """"c-avx512", "c-avx2", "c-neon-dot", "c-neon", "c-generic", "portable", or one of them with "+cuda"."""
    note: str | None
    """Why no faster backend is used, in words for the user; None if this is the fastest for the machine."""
    threads: int
    """Number of threads for a large call."""
    keeps_weights: bool
    """Whether whole weights are copied to a device and kept there; parts of them would be copied each time."""
    functions: NativeFunctions | None
    """What C code may call instead of the methods of the same names; None where there is no such function."""

    def linear_a12(self, weights: Weights, rows: Int16s) -> Sums:
        """W x in plain integers: weights [N, K], rows [T, K] with |x| <= 2047 -> [T, N].

        The caller's scale guarantees |W x| < p / 2. A row value beyond 12 bits is a ValueError.
        """
        ...

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        """W b mod p, canonical: weights [N, K], rows [T, K] -> [T, N]. An element >= p is a ValueError."""
        ...

    def share(self, rows: Int16s, pads: Elements) -> Elements:
        """x - r mod p, canonical: rows [T, K], pads [T, K] canonical -> [T, K]."""
        ...

    def merge(self, first: Elements, second: Elements) -> Sums:
        """first + second mod p as the integer nearest to zero: [T, N] canonical, twice -> [T, N]."""
        ...

    def centre(self, elements: Elements) -> Sums:
        """Canonical elements as integers in (-p / 2, p / 2): [T, N] -> [T, N]."""
        ...

    def dots_agree(self, vectors: Elements, outputs: Elements, projections: Elements, inputs: Elements) -> bool:
        """Whether all outputs are canonical and u_i . y_t = v_i . x_t mod p for all i and t: vectors [k, N], outputs
        [T, N], projections [k, K], inputs [T, K], k at most 8; all but the outputs canonical. It computes everything,
        whatever it finds."""
        ...

    def field_combine(self, coefficients: Elements, rows: Elements) -> Elements:
        """sum over t of c_it y_t mod p: coefficients [k, T], rows [T, N], both canonical -> [k, N]."""
        ...

    def field_project(self, vectors: Elements, weights: Weights) -> Elements:
        """U W mod p: vectors [k, N] canonical, weights [N, K] -> [k, K]."""
        ...

    def all_canonical(self, elements: Elements) -> bool:
        """Whether every element, of any shape, is below p; reads all of them whatever it finds."""
        ...

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[Int16s, Floats]:
        """Activations as integers of 12 bits and one scale a row: hidden [T, K] -> [T, K], [T].

        s = max|x| / 2047 and xq = rint(x / s), half to even, clipped. While max_row_norm * ||xq|| >= p / 2,
        the scale is multiplied by (max_row_norm * ||xq|| / (p / 2)) * SCALE_MARGIN, in float64 rounded to
        float32, but at least to the next float32, and the row is rounded again. A row of zeros, or too small
        to have a scale, takes s = 1.

        Args:
            max_row_norm: the largest Euclidean norm of a weight row of the unit that these rows go through.

        Raises:
            NotFiniteError: a value is not finite; it names the first such row.
        """
        ...

    def norm_quantize(
        self, hidden: Floats, gain: Floats, epsilon: float, max_row_norm: float
    ) -> tuple[Int16s, Floats]:
        """`rms_norm`, then `quantize`, without a copy in memory: hidden [T, D], gain [D]."""
        ...

    def gated_quantize(
        self, gate_up: Floats, max_row_norm: float, activation: Activation = "silu"
    ) -> tuple[Int16s, Floats]:
        """activation(gate) * up, then `quantize`: gate_up [T, 2F], gate in the first F columns -> [T, F], [T]."""
        ...

    def gated(self, gate_up: Floats, activation: Activation = "silu") -> Floats:
        """The rows that `gated_quantize` rounds: gate_up [T, 2F] -> [T, F]. Non-finite values pass through."""
        ...

    def fused_layers(self, layers: Sequence[LayerParts], shape: LayerShape) -> FusedLayers | None:
        """The same layers in one call each, with the same bits; None where this backend takes one step at a time."""
        ...

    def softcap(self, values: Floats, limit: float) -> Floats:
        """limit * tanh(value / limit): [T, N] -> [T, N], all within the limit."""
        ...

    def dequantize(self, sums: Sums, row_scales: Floats, weight_scales: Floats, bias: Floats | None) -> Floats:
        """(sum * weight_scale) * row_scale + bias: sums [T, N], scales [T] and [N], bias [N] -> [T, N]."""
        ...

    def rms_norm(self, hidden: Floats, gain: Floats, epsilon: float) -> Floats:
        """(x / sqrt(mean(x^2) + epsilon)) * gain: hidden [T, D], gain [D] -> [T, D]."""
        ...

    def rope(self, heads: Floats, cos: Floats, sin: Floats) -> None:
        """Rotate the pairs (i, i + r/2) in place: heads [T, H, d], cos and sin [T, r/2], r at most d.

        Features from r on do not change.
        Axis 0 of heads may be strided: the queries inside a fused qkv row are rotated in place.
        """
        ...

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
        """Causal grouped-query attention: queries [T, H, d], keys and values [G, S, d] -> [T, H * d].

        Head h reads group h // (H / G). Row t attends to the slots s <= positions[t], with a window also
        s > positions[t] - window. With a softcap c, a scaled product x counts as c * tanh(x / c). Axis 0 of queries,
        keys and values may be strided: views on a larger buffer need no copy.
        """
        ...
