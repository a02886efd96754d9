"""Whose rows go into the next pass: continuous batching, decided purely.

Everybody who decodes has one row in every pass. Prompts get what room is left, the shortest first, a quarter of it
for the oldest, so that none waits for ever; beside running streams only so much that these do not stall.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.model.decoder import BLOCK_ROWS
from protocol.limits import ROW_BUCKETS

MIN_BLOCK_ROWS = 16
"""A prompt beside running streams advances by at least so many rows a pass, if there is room."""
PASS_TARGET_S = 0.1
"""Prompts should not hold up the streams beside them for longer than this a pass."""
ALONE_TARGET_S = 1.0
"""Where nobody streams, a prompt still says so often how far it is."""
MIN_ALONE_ROWS = 64
SPEED_WEIGHT = 0.3
OLDEST_SHARE = 4


class PassPacer:
    """How many rows a pass with prompts may have: the bucket that fits its target, as measured.

    A pass travels as its bucket: with a row more it would cost twice as much.
    """

    def __init__(self) -> None:
        self._row_s: float | None = None
        self._base_s = 0.0
        """What a pass of a few rows takes: messages, not rows, are its price."""

    @property
    def rows_beside(self) -> int:
        """Rows of a pass with prompts and running streams, the streams' included."""
        if self._row_s is None:
            return 2 * MIN_BLOCK_ROWS
        return max(MIN_BLOCK_ROWS, _bucket_within(PASS_TARGET_S / self._row_s))

    @property
    def rows_alone(self) -> int:
        """Rows of prompts in a pass where nobody streams."""
        if self._row_s is None:
            return BLOCK_ROWS
        return max(MIN_ALONE_ROWS, _bucket_within(ALONE_TARGET_S / self._row_s))

    def measured(self, num_rows: int, seconds: float) -> None:
        """A pass took so long; one of a few rows says what any pass takes, others what a row adds."""
        if num_rows < MIN_BLOCK_ROWS:
            self._base_s += SPEED_WEIGHT * (seconds - self._base_s) if self._base_s else seconds
            return
        row_s = max((seconds - self._base_s) / num_rows, 1e-6)
        self._row_s = row_s if self._row_s is None else self._row_s + SPEED_WEIGHT * (row_s - self._row_s)


def _bucket_within(rows: float) -> int:
    """The largest bucket of at most so many rows; a row where that is less than one."""
    return max((bucket for bucket in ROW_BUCKETS if bucket <= rows), default=1)


def compose(pending: Sequence[int], rows_alone: int, rows_beside: int) -> list[int]:
    """Rows of each sequence in the next pass, at most BLOCK_ROWS together.

    Args:
        pending: tokens that each still has to have computed, at least one; the oldest request first.
        rows_alone: rows of prompts at most where nobody decodes.
        rows_beside: rows at most where somebody does, those who decode included.
    """
    decoding = sum(count == 1 for count in pending)
    room = max(1, min(BLOCK_ROWS, rows_beside if decoding else rows_alone) - decoding)
    rows = [min(count, 1) for count in pending]
    prompts = [index for index, count in enumerate(pending) if count > 1]
    for index in prompts[:1]:
        rows[index] = min(pending[index], max(1, room // OLDEST_SHARE))
        room -= rows[index]
    for index in prompts[1:]:
        rows[index] = 0
    for index in sorted(prompts, key=lambda index: pending[index]):
        added = min(pending[index] - rows[index], room)
        rows[index] += added
        room -= added
    return rows


def spread(rows: Sequence[int], logits: Sequence[object]) -> list[object]:
    """Logits of those that had rows, None for the others."""
    each = iter(logits)
    return [next(each) if count else None for count in rows]
