"""The W8 rule: float32 weight rows to int8, the same bytes on every machine.

It uses only numpy on the CPU. Division, rounding half to even and comparison are exact IEEE operations, so a
checkpoint has the same result and the same SHA-256 everywhere. Never use a GPU or a fused multiply-add here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from node.errors import UnsupportedModelError
from protocol.linear.field import Floats, Weights

# Specification (SPEC.md, arithmetic).
WEIGHT_LIMIT = 127
SMALLEST_MAGNITUDE = 2.0**-100
"""A row whose largest weight is below this becomes a row of zeros with scale 1."""

I64 = npt.NDArray[np.int64]


def quantize_rows(weights: Floats) -> tuple[Weights, Floats]:
    """Integers and scales of weight rows: f32[n, K] -> i8[n, K] in -127..127, f32[n].

    Raises:
        UnsupportedModelError: a weight is not finite.
    """
    magnitudes = np.abs(weights).max(axis=1)
    if not np.isfinite(magnitudes).all():
        raise UnsupportedModelError("a weight is infinite or not a number; the checkpoint is damaged, fetch it again")
    tiny = magnitudes < np.float32(SMALLEST_MAGNITUDE)
    scales = np.where(tiny, np.float32(1.0), magnitudes / np.float32(WEIGHT_LIMIT)).astype(np.float32)
    quotients = weights / scales[:, None]
    np.rint(quotients, out=quotients)
    np.clip(quotients, -WEIGHT_LIMIT, WEIGHT_LIMIT, out=quotients)
    quotients[tiny] = 0.0
    return quotients.astype(np.int8), scales


def squared_row_norms(weights: Weights) -> I64:
    """Exact sum of squares of every row: i8[n, K] -> i64[n]; K is at most 2^17, so int32 holds a row's sum."""
    wide = weights.astype(np.int32)
    sums: I64 = np.einsum("nk,nk->n", wide, wide).astype(np.int64)
    return sums
