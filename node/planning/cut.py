"""The cutting of a pass: which rows go to which lane, and as which chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.limits import MAX_CHUNK_ROWS, ROW_BUCKETS, row_bucket

SMALL_PASS_ROWS = 8
"""A pass of so many rows (running streams, a very short prompt) stays in one lane."""
DECODE_BATCH_ROWS = 8
"""Pads of this many future rows are asked for in one request: an eighth of the messages, weights read once."""


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Rows `[start, end)` of one forward pass that stay in one lane."""

    lane: int
    start: int
    end: int


def split_prompt_for_remote(num_rows: int, lane_speeds: Sequence[float]) -> list[RowSpan]:
    """Cut the rows of a forward pass over the lanes that are alive, in proportion to their speed.

    Args:
        num_rows: rows of the pass (prompt tokens, or 1 while decoding).
        lane_speeds: rows a second of each lane; 0 for a lane that is not to be used.

    Returns:
        Spans that cover `[0, num_rows)` in order, one a lane at most; none where no lane is alive. Few rows go to the
        fastest lane together: reading the weights and the messages are the price of a chunk, not its rows.
    """
    alive = [lane for lane, speed in enumerate(lane_speeds) if speed > 0]
    if not alive or num_rows == 0:
        return []
    if num_rows <= SMALL_PASS_ROWS:
        return [RowSpan(max(alive, key=lambda lane: lane_speeds[lane]), 0, num_rows)]
    total = sum(lane_speeds[lane] for lane in alive)
    spans, start, passed = [], 0, 0.0
    for lane in alive:
        passed += lane_speeds[lane]
        end = num_rows if lane == alive[-1] else round(num_rows * passed / total)
        if end > start:
            spans.append(RowSpan(lane, start, end))
            start = end
    return spans


def cut_rows(start: int, end: int, max_rows: int) -> list[tuple[int, int]]:
    """Cut rows `[start, end)` of one lane into chunks of at most `max_rows` (a bucket size).

    A chunk travels as the smallest bucket that holds it. Whole buckets go first; a rest that fills more than half
    of a bucket travels as that bucket, a smaller rest is cut again: few messages, less than half of them padding.
    """
    buckets = [bucket for bucket in ROW_BUCKETS if bucket <= min(max_rows, MAX_CHUNK_ROWS)]
    cuts = []
    while start < end:
        rest = end - start
        size = next(bucket for bucket in reversed(buckets) if bucket <= rest)
        if size != buckets[-1] and rest > row_bucket(rest) // 2:
            size = rest
        cuts.append((start, start + size))
        start += size
    return cuts
