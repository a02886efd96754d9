"""Cuts a pass: decides which rows go to which lane, and in which chunks.

What is sent depends only on the bucket of the pass and on the lanes, never on the number of rows in the bucket: the
bucket is cut into waves, and each wave among the lanes, and the rows are spread over the parts. Peers that compare
their messages learn only the bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from msgspec import Struct

from protocol.limits import MAX_CHUNK_ROWS, ROW_BUCKETS, row_bucket

DECODE_BATCH_ROWS = 8
"""A pass of so many rows (running streams, a very short prompt) is one chunk in one lane; pads of this many future
rows are asked for in one request: an eighth of the messages, weights read once."""
LANE_PARTS = 8
"""A bucket is divided among lanes in eighths, so that a lane's part is few chunks."""


LEAST_WAVE_ROWS = 64
"""Fewer rows are not worth messages of their own: a pass that is sent as less than twice as many is one wave."""


class RowSpan(Struct, frozen=True):
    """Rows `[start, end)` of one forward pass that stay in one lane, or in one chunk of it."""

    lane: int
    start: int
    end: int
    num_sent: int
    """Number of rows that are sent: these rows and zero rows."""


class Wave(Struct, frozen=True):
    """Rows `[start, end)` of one forward pass that go through the layers together."""

    start: int
    end: int
    num_sent: int
    """Number of rows that are sent: these rows and zero rows."""

    @property
    def num_rows(self) -> int:
        return self.end - self.start


def cut_waves(num_rows: int, most: int) -> list[Wave]:
    """Cut a forward pass into waves of equal size, at most `most`; as everywhere, its bucket is cut."""
    bucket = row_bucket(num_rows)
    count = max(1, min(most, bucket // LEAST_WAVE_ROWS))
    while bucket % count:
        count -= 1
    borders = [num_rows * place // count for place in range(count + 1)]
    return [Wave(start, end, bucket // count) for start, end in pairwise(borders)]


def split_prompt_for_remote(num_rows: int, lane_speeds: Sequence[float]) -> list[RowSpan]:
    """Cut the bucket of a forward pass in one wave among the usable lanes.

    Args:
        num_rows: rows of the pass, 512 at most (prompt tokens, or 1 while decoding).
        lane_speeds: rows a second of each lane; 0 for a lane that is not to be used.

    Returns:
        As `split_wave`.
    """
    return split_wave(Wave(0, num_rows, row_bucket(num_rows)), lane_speeds) if num_rows else []


def split_wave(wave: Wave, lane_speeds: Sequence[float]) -> list[RowSpan]:
    """Cut the rows that are sent of a wave among the usable lanes, in proportion to their speed.

    Returns:
        Spans that cover the wave in order, one a lane at most, none without a row; no span where no lane is alive.
        Few rows go to the fastest lane together: reading the weights and the messages are the price of a chunk, not
        its rows.
    """
    alive = [lane for lane, speed in enumerate(lane_speeds) if speed > 0]
    if not alive:
        return []
    bucket = wave.num_sent
    if bucket <= DECODE_BATCH_ROWS:
        return [RowSpan(max(alive, key=lambda lane: lane_speeds[lane]), wave.start, wave.end, bucket)]
    total = sum(lane_speeds[lane] for lane in alive)
    granule = max(DECODE_BATCH_ROWS, bucket // LANE_PARTS)
    spans, sent, passed = [], 0, 0.0
    for lane in alive:
        passed += lane_speeds[lane]
        until = bucket if lane == alive[-1] else granule * round(bucket * passed / total / granule)
        if until > sent:
            spans.append(_spread(RowSpan(lane, wave.start, wave.end, bucket), sent, until))
            sent = until
    return spans


@lru_cache(maxsize=1024)
def cut_rows(span: RowSpan, max_rows: int) -> Sequence[RowSpan]:
    """Cut a lane's part of a pass into chunks of at most `max_rows`, each a bucket; the largest first.

    If a chunk of the unit may have very few rows, some chunks have no row of the pass: they are sent nevertheless.
    """
    largest = min(max_rows, MAX_CHUNK_ROWS)
    cuts, sent = [], 0
    while sent < span.num_sent:
        size = max(bucket for bucket in ROW_BUCKETS if bucket <= min(largest, span.num_sent - sent))
        cuts.append(_spread(span, sent, sent + size))
        sent += size
    return cuts


def _spread(whole: RowSpan, sent: int, until: int) -> RowSpan:
    """The part of the rows that is sent as rows `[sent, until)`, in proportion."""
    num_rows = whole.end - whole.start
    start, end = (whole.start + num_rows * place // whole.num_sent for place in (sent, until))
    return RowSpan(whole.lane, start, end, until - sent)
