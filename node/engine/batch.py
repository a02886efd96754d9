"""Decides which rows go into the next pass: continuous batching. No I/O.

Every decoding request has one row in every pass. Prompts get the remaining room, the shortest first, with a quarter
of it for the oldest, so that none waits for ever. While streams are running, prompts get only so much that these do
not stall.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.model.decoder import BLOCK_ROWS
from protocol.limits import ROW_BUCKETS

MIN_BLOCK_ROWS = 16
"""While streams are running, a prompt advances by at least so many rows per pass, if there is room."""
PASS_TARGET_S = 0.1
"""Prompts should not delay running streams by more than this per pass."""
ALONE_TARGET_S = 1.0
"""If no stream is running, a pass takes about so long, so that a request that comes does not wait for a whole prompt.
Where peers compute, a short pass costs as many round trips as a long one: there a pass has `PASS_ROWS` at least."""
MIN_ALONE_ROWS = 64
SPEED_WEIGHT = 0.3
OLDEST_SHARE = 4


class PassPacer:
    """How many rows a pass with prompts may have: the largest bucket that meets the time target, as measured.

    A pass is sent as its bucket: with one row more it would cost twice as much.
    """

    def __init__(self) -> None:
        self._row_s: float | None = None
        self._base_s = 0.0
        """Time of a pass of a few rows, which depends on messages, not on rows."""

    @property
    def rows_beside(self) -> int:
        """Most rows of a pass with prompts and running streams, including the streams' rows."""
        if self._row_s is None:
            return 2 * MIN_BLOCK_ROWS
        return max(MIN_BLOCK_ROWS, _bucket_within(PASS_TARGET_S / self._row_s))

    @property
    def rows_alone(self) -> int:
        """Most rows of prompts in a pass without running streams."""
        if self._row_s is None:
            return BLOCK_ROWS
        return max(MIN_ALONE_ROWS, _bucket_within(ALONE_TARGET_S / self._row_s))

    def measured(self, num_rows: int, seconds: float) -> None:
        """A pass took this long. A pass of a few rows gives the time of any pass, others give the time per row."""
        if num_rows < MIN_BLOCK_ROWS:
            self._base_s += SPEED_WEIGHT * (seconds - self._base_s) if self._base_s else seconds
            return
        row_s = max((seconds - self._base_s) / num_rows, 1e-6)
        self._row_s = row_s if self._row_s is None else self._row_s + SPEED_WEIGHT * (row_s - self._row_s)


def _bucket_within(rows: float) -> int:
    """The largest bucket of at most so many rows, but at least one row."""
    return max((bucket for bucket in ROW_BUCKETS if bucket <= rows), default=1)


def compose(pending: Sequence[int], rows_alone: int, rows_beside: int) -> list[int]:
    """Rows of each sequence in the next pass, at most BLOCK_ROWS together.

    Args:
        pending: number of tokens that each request still needs computed, at least one; the oldest request first.
        rows_alone: most rows of prompts if nobody decodes.
        rows_beside: most rows if somebody decodes, including the decoding rows.
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
    """The logits of sequences that had rows, None for the others."""
    each = iter(logits)
    return [next(each) if count else None for count in rows]
