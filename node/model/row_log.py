"""The hidden states that went into a run of layers, by position: what another device needs to compute it again."""

from __future__ import annotations

from typing import Self

import numpy as np

from protocol.linear.field import Floats

GROWTH_ROWS = 512
"""So many rows are added at a time."""


class RowLog:
    """Rows f32[D] of the positions 0 to `length`, of one sequence."""

    def __init__(self, hidden_size: int) -> None:
        self._rows: Floats = np.empty((0, hidden_size), dtype=np.float32)
        self.length = 0

    @property
    def num_bytes(self) -> int:
        """Its memory, including room for more rows."""
        return self._rows.nbytes

    def put(self, start: int, rows: Floats) -> None:
        """Write the rows from position `start` on, and forget what was behind them.

        Args:
            start: at most `length`.
        """
        assert start <= self.length, "rows follow each other"
        stop = start + len(rows)
        if stop > len(self._rows):
            grown = np.empty((-(-stop // GROWTH_ROWS) * GROWTH_ROWS, self._rows.shape[1]), dtype=np.float32)
            grown[:start] = self._rows[:start]
            self._rows = grown
        self._rows[start:stop] = rows
        self.length = stop

    def rows(self, start: int, stop: int) -> Floats:
        """The rows of these positions, f32[stop - start, D]: a view, valid until the next `put`."""
        assert stop <= self.length, "only what was written is read"
        return self._rows[start:stop]

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)

    def beginning(self, length: int) -> Self:
        """Another log, with the positions before `length` as far as they are known."""
        twin = type(self)(self._rows.shape[1])
        twin.put(0, self._rows[: min(length, self.length)])
        return twin
