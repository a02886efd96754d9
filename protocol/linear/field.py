"""The prime field F_p, p = 2^31 - 1, and the interface of its arithmetic.

Elements are canonical little-endian u32 `< p`. The arithmetic itself is the kernels' (`node.kernels`
has a compiled and a portable implementation with identical results); this module fixes what it means.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

P = (1 << 31) - 1
"""A Mersenne prime: products of two elements reduce by shifts, and 4 bytes carry 31 bits of pad."""

HALF_P = P // 2

Elements = NDArray[np.uint32]
Sums = NDArray[np.int32]
Floats = NDArray[np.float32]
Weights = NDArray[np.int8]


class FieldArithmetic(Protocol):
    """What verification and merging need of a kernel backend; all results canonical."""

    def dots_agree(self, vectors: Elements, outputs: Elements, projections: Elements, inputs: Elements) -> bool:
        """Whether `outputs [T, N]` are canonical and their dot products with `vectors [k, N]` are those of
        `inputs [T, K]` with `projections [k, K]` mod p; computes all, whatever it finds."""

    def field_combine(self, coefficients: Elements, rows: Elements) -> Elements:
        """`coefficients [k, T]`, `rows [T, N]` -> `[k, N]`: linear combinations of rows mod p."""

    def field_project(self, vectors: Elements, weights: Weights) -> Elements:
        """`vectors [k, N]`, `weights [N, K]` int8 -> `[k, K]` mod p."""

    def all_canonical(self, elements: Elements) -> bool:
        """Whether every element is below p; looks at all of them."""


def elements_of_words(words: NDArray[Any]) -> Elements:
    """Canonical elements from little-endian u32 words: the top bit is cleared, 2^31 - 1 is rejected.

    A wider range is never reduced: the bias would identify tokens (SPEC.md section 7).
    """
    masked: Elements = np.asarray(words, dtype="<u4") & np.uint32(P)
    return masked if not (masked == P).any() else masked[masked != P]


def elements_of_integers(values: NDArray[Any]) -> Elements:
    """`v mod p` of signed integers with `|v| < p`, canonical."""
    wide = values.astype(np.int32)
    return (wide + ((wide >> 31) & np.int32(P))).view(np.uint32)


def all_centred(sums: Sums) -> bool:
    """Whether every integer stands for one element alone: `|v| <= (p - 1) / 2`; looks at all of them."""
    return not sums.size or bool(max(int(sums.max()), -int(sums.min())) <= HALF_P)
