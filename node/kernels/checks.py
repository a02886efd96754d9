"""The one place where arguments of kernels are checked, before a pointer is taken from them.

Checks return the array: an unaligned one (a frame out of a receive buffer) comes back as an aligned copy.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .interface import MAX_INPUTS, Floats, Int8s, Int64s

Scalar = TypeVar("Scalar", bound=np.generic)


def array(
    value: NDArray[Any], name: str, dtype: type[Scalar], num_axes: int | None = None
) -> NDArray[Scalar]:
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


def linear(weights: Int8s, rows: NDArray[Any], dtype: type[Scalar]) -> tuple[Int8s, NDArray[Scalar]]:
    """weights [N, K] int8 and rows [T, K] of the dtype, with K within the exactness bound."""
    weights = array(weights, "weights", np.int8, 2)
    rows = array(rows, "rows", dtype, 2)
    if rows.shape[1] != weights.shape[1]:
        raise ValueError(f"rows of shape {rows.shape} do not fit weights of shape {weights.shape}")
    if weights.shape[1] > MAX_INPUTS:
        raise ValueError(
            f"a contraction of {weights.shape[1]} exceeds {MAX_INPUTS}, the bound for exact sums"
        )
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
        raise ValueError(
            f"{name}: shape {value.shape} with strides {value.strides} is not contiguous within axis 0"
        )
    return value


def attention(queries: Floats, keys: Floats, values: Floats, positions: Int64s, window: int | None) -> None:
    """Shapes of an attention call, and positions that lie inside the cache."""
    if keys.shape != values.shape or queries.shape[2] != keys.shape[2]:
        raise ValueError(f"queries {queries.shape}, keys {keys.shape} and values {values.shape} do not fit")
    if keys.shape[0] < 1 or queries.shape[1] % keys.shape[0] != 0:
        raise ValueError(f"{queries.shape[1]} heads do not divide into {keys.shape[0]} groups")
    shape(positions, "positions", (queries.shape[0],))
    if window is not None and window < 1:
        raise ValueError(f"a window must be at least 1, not {window}")
    if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < keys.shape[1]:
        raise ValueError(
            f"positions {positions.min()}..{positions.max()} lie outside the {keys.shape[1]} slots"
        )
