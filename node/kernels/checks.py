"""Checks the arguments of kernels, before a pointer is taken from them.

Checks return the array; for an unaligned one (a frame in a receive buffer) they return an aligned copy.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from node.kernels.interface import MAX_INPUTS, Int64s
from protocol.linear.field import Elements, Floats, Sums, Weights

MAX_AGREEING = 8
"""Vectors that `dots_agree` takes, as in kernels.c."""

Scalar = TypeVar("Scalar", bound=np.generic)


def array(value: NDArray[Any], name: str, dtype: type[Scalar], num_axes: int | None = None) -> NDArray[Scalar]:
    """The array itself, if it is C-contiguous, of this dtype and this number of axes."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype or not value.dtype.isnative:
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} must be a numpy array of {dtype.__name__}, not {found}")
    if num_axes is not None and value.ndim != num_axes:
        raise ValueError(f"{name} must have {num_axes} axes, not shape {value.shape}")
    flags = value.flags
    if not flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous, shape {value.shape} has strides {value.strides}")
    return value if flags.aligned else value.copy()


def shape(value: NDArray[Any], name: str, expected: tuple[int, ...]) -> None:
    """Refuse an array whose shape is not the expected one."""
    if value.shape != expected:
        raise ValueError(f"{name} must have shape {expected}, not {value.shape}")


def linear(weights: Weights, rows: NDArray[Any], dtype: type[Scalar]) -> tuple[Weights, NDArray[Scalar]]:
    """weights [N, K] int8 and rows [T, K] of the dtype, with K within the exactness bound."""
    weights = array(weights, "weights", np.int8, 2)
    rows = array(rows, "rows", dtype, 2)
    if rows.shape[1] != weights.shape[1]:
        raise ValueError(f"rows of shape {rows.shape} do not fit weights of shape {weights.shape}")
    if weights.shape[1] > MAX_INPUTS:
        raise ValueError(f"a contraction of {weights.shape[1]} exceeds {MAX_INPUTS}, the bound for exact sums")
    return weights, rows


def row_norm(max_row_norm: float) -> float:
    """A usable bound on the norms of weight rows: finite and not negative."""
    if not 0.0 <= max_row_norm < float("inf"):
        raise ValueError(f"max_row_norm must be finite and not negative, not {max_row_norm}")
    return float(max_row_norm)


def inner_contiguous(value: NDArray[Any], name: str, num_axes: int) -> Floats:
    """float32 whose last two axes are contiguous; axis 0 may be strided by whole elements, forwards."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.ndim != num_axes:
        raise ValueError(f"{name} must be a numpy array of float32 with {num_axes} axes")
    flags = value.flags
    if flags.c_contiguous and flags.aligned:
        return value
    itemsize, inner = value.itemsize, value.shape[-1]
    fits = value.strides[-1] == itemsize or inner <= 1
    fits = fits and (value.strides[-2] == itemsize * inner or value.shape[-2] <= 1)
    fits = fits and (value.strides[0] >= 0 and value.strides[0] % itemsize == 0)
    if not fits or not flags.aligned:
        raise ValueError(f"{name}: shape {value.shape} with strides {value.strides} is not contiguous within axis 0")
    return value


def twins(
    first: NDArray[Any], second: NDArray[Any], names: tuple[str, str], dtype: type[Scalar]
) -> tuple[NDArray[Scalar], Elements]:
    """Two matrices of one shape: the first of the dtype, the second of field elements."""
    first = array(first, names[0], dtype, 2)
    second = array(second, names[1], np.uint32, 2)
    shape(second, names[1], first.shape)
    return first, second


def dot(vectors: Elements, rows: Elements) -> tuple[Elements, Elements]:
    """vectors [k, N] and rows [T, N]."""
    vectors = array(vectors, "vectors", np.uint32, 2)
    rows = array(rows, "rows", np.uint32, 2)
    shape(vectors, "vectors", (vectors.shape[0], rows.shape[1]))
    return vectors, rows


def dots(
    vectors: Elements, outputs: Elements, projections: Elements, inputs: Elements
) -> tuple[Elements, Elements, Elements, Elements]:
    """vectors [k, N], outputs [T, N], projections [k, K], inputs [T, K], few vectors."""
    vectors, outputs = dot(vectors, outputs)
    projections, inputs = dot(projections, inputs)
    if len(vectors) > MAX_AGREEING or len(projections) != len(vectors) or len(inputs) != len(outputs):
        shapes = [array.shape for array in (vectors, outputs, projections, inputs)]
        raise ValueError(f"vectors, outputs, projections and inputs of shapes {shapes} do not fit")
    return vectors, outputs, projections, inputs


def combination(coefficients: Elements, rows: Elements) -> tuple[Elements, Elements]:
    """coefficients [k, T] and rows [T, N]."""
    coefficients = array(coefficients, "coefficients", np.uint32, 2)
    rows = array(rows, "rows", np.uint32, 2)
    shape(coefficients, "coefficients", (coefficients.shape[0], rows.shape[0]))
    return coefficients, rows


def projection(vectors: Elements, weights: Weights) -> tuple[Elements, Weights]:
    """vectors [k, N] and weights [N, K]."""
    vectors = array(vectors, "vectors", np.uint32, 2)
    weights = array(weights, "weights", np.int8, 2)
    shape(vectors, "vectors", (vectors.shape[0], weights.shape[0]))
    return vectors, weights


def norm(hidden: Floats, gain: Floats) -> tuple[Floats, Floats]:
    """hidden [T, D] and gain [D]."""
    hidden = array(hidden, "hidden", np.float32, 2)
    gain = array(gain, "gain", np.float32, 1)
    shape(gain, "gain", hidden.shape[1:])
    return hidden, gain


def gated(gate_up: Floats) -> Floats:
    """gate_up [T, 2F]."""
    gate_up = array(gate_up, "gate_up", np.float32, 2)
    if gate_up.shape[1] % 2:
        raise ValueError(f"gate_up must have an even number of columns, not {gate_up.shape[1]}")
    return gate_up


def softcap(values: Floats, limit: float) -> Floats:
    """values [T, N] and a limit that is a positive number."""
    _softcap_limit(limit)
    return array(values, "values", np.float32, 2)


def _softcap_limit(limit: float) -> None:
    if not 0.0 < limit < float("inf"):
        raise ValueError(f"a softcap must be a positive number, not {limit}")


def dequantization(
    sums: Sums, row_scales: Floats, weight_scales: Floats, bias: Floats | None
) -> tuple[Sums, Floats, Floats, Floats | None]:
    """sums [T, N], row_scales [T], weight_scales and bias [N]."""
    sums = array(sums, "sums", np.int32, 2)
    row_scales = array(row_scales, "row_scales", np.float32, 1)
    weight_scales = array(weight_scales, "weight_scales", np.float32, 1)
    shape(row_scales, "row_scales", sums.shape[:1])
    shape(weight_scales, "weight_scales", sums.shape[1:])
    if bias is not None:
        bias = array(bias, "bias", np.float32, 1)
        shape(bias, "bias", sums.shape[1:])
    return sums, row_scales, weight_scales, bias


def rotation(heads: Floats, cos: Floats, sin: Floats) -> tuple[Floats, Floats, Floats]:
    """heads [T, H, d], writable, axis 0 possibly strided; cos and sin [T, r/2], r at most d."""
    heads = inner_contiguous(heads, "heads", 3)
    if heads.shape[2] % 2 or not heads.flags.writeable:
        raise ValueError(f"heads must be writable and of an even size, not {heads.shape[2]}")
    cos = array(cos, "cos", np.float32, 2)
    sin = array(sin, "sin", np.float32, 2)
    if cos.shape[1] > heads.shape[2] // 2:
        raise ValueError(f"cos must have at most {heads.shape[2] // 2} columns, not {cos.shape[1]}")
    shape(cos, "cos", (heads.shape[0], cos.shape[1]))
    shape(sin, "sin", cos.shape)
    return heads, cos, sin


def attention(
    queries: Floats,
    keys: Floats,
    values: Floats,
    positions: Int64s,
    window: int | None,
    softcap: float | None = None,
) -> tuple[Floats, Floats, Floats, Int64s]:
    """queries [T, H, d], keys and values [G, S, d], and positions [T] that lie inside the cache."""
    queries = inner_contiguous(queries, "queries", 3)
    keys = inner_contiguous(keys, "keys", 3)
    values = inner_contiguous(values, "values", 3)
    positions = array(positions, "positions", np.int64, 1)
    if keys.shape != values.shape or queries.shape[2] != keys.shape[2]:
        raise ValueError(f"queries {queries.shape}, keys {keys.shape} and values {values.shape} do not fit")
    if keys.shape[0] < 1 or queries.shape[1] % keys.shape[0] != 0:
        raise ValueError(f"{queries.shape[1]} heads do not divide into {keys.shape[0]} groups")
    shape(positions, "positions", (queries.shape[0],))
    if softcap is not None:
        _softcap_limit(softcap)
    if window is not None and window < 1:
        raise ValueError(f"a window must be at least 1, not {window}")
    if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < keys.shape[1]:
        raise ValueError(f"positions {positions.min()}..{positions.max()} lie outside the {keys.shape[1]} slots")
    return queries, keys, values, positions
