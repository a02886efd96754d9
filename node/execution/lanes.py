"""Lanes and the cutting of rows: who may ever see what, decided purely.

A lane is a fixed pair of guards: A gets the seeds of pads, B gets rows minus pads. A row stays in its lane, so only
the two guards of one lane could ever put it together; a peer never holds both roles in a session.
In `strict` mode pads are made at home and a lane is B alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from protocol.limits import MAX_CHUNK_ROWS, ROW_BUCKETS, row_bucket

DEFAULT_MAX_LANES = 4
SMALL_PASS_ROWS = 8
"""A pass of so many rows (running streams, a very short prompt) stays in one lane."""


PeerT = TypeVar("PeerT")


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Rows `[start, end)` of one forward pass that stay in one lane."""

    lane: int
    start: int
    end: int


def pair_guards(places: Sequence[PeerT | None], max_lanes: int) -> list[tuple[PeerT, PeerT]]:
    """Fixed lanes (A, B): the peers at places 2i and 2i + 1, in the order in which the user named them.

    Args:
        places: a named peer that is not there leaves its place empty. Its partner then stays out: nobody moves up, or
            two peers that the user kept apart could meet in one lane.
    """
    pairs = zip(places[::2], places[1::2], strict=False)
    return [(a, b) for a, b in pairs if a is not None and b is not None][:max_lanes]


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
