"""One vector for a text, from the hidden states of its tokens: what `/v1/embeddings` gives."""

from __future__ import annotations

from enum import Enum

import numpy as np

from protocol.linear.field import Floats


class Pooling(Enum):
    """How the hidden states of a text become one."""

    MEAN = "mean"
    LAST = "last"
    """The last token's, which has read all others."""


class Pool:
    """Takes the hidden states after the final norm, row by row, so that the sum is the same bits however the rows
    were cut into passes."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._sum: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None

    def add(self, rows: Floats) -> None:
        """Rows f32[T, D] of the next T tokens."""
        for row in rows.astype(np.float64):
            self._sum = row if self._sum is None or self._pooling is Pooling.LAST else self._sum + row

    def vector(self) -> tuple[float, ...]:
        """D numbers of length 1 (all 0 where every state is 0); the mean needs no division for that."""
        assert self._sum is not None, "a text has at least one token"
        largest = float(np.max(np.abs(self._sum)))
        scaled = self._sum / largest if largest else self._sum
        length = float(np.sqrt(sum(float(value) * float(value) for value in scaled)))
        return tuple(float(np.float32(value / length)) if length else 0.0 for value in scaled)
