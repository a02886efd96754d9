"""The history of chunks as rows for watchers; it costs nothing while nobody watches.

The computing thread appends to a bounded queue and never waits; rows that do not fit are counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.pads.batch import PadBatch
from node.execution.peer import SessionPeer

MAX_WAITING = 8192

Row = tuple[int, str, int | None, str, int, int, str | None, str | None, str, float]
"""number, request, layer, kind of unit, first row, row after the last, peer, role, state, ms since it was sent"""


class ChunkFeed:
    """One feed per engine: any thread writes, one reader takes."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque()
        self._dropped = 0
        self._lock = threading.Lock()
        self.watched = False
        """Set by the reader."""

    def push(self, record: ChunkRecord, request_id: str, role: str | None) -> None:
        """A chunk changed its state; `request_id` is the request of its first row, `role` the role of its peer."""
        if not self.watched:
            return
        chunk = record.chunk
        where = (chunk.unit.layer, chunk.unit.kind, chunk.row_start, chunk.row_end)
        who = None if record.peer_id is None else role
        self._append(
            (record.number, request_id, *where, record.peer_id, who, record.state.value, _ms_since(record.sent_at))
        )

    def push_pad(
        self, batch: PadBatch, peer: SessionPeer, state: ChunkState, sent_at: float, request_id: str
    ) -> None:
        """A batch of pads changed its state. Verified pads are stored, and lost pads are not asked for again."""
        if not self.watched:
            return
        where = (batch.unit.layer, batch.unit.kind, 0, batch.num_rows)
        ends = {ChunkState.VERIFIED: [ChunkState.MERGED], ChunkState.LOST: [ChunkState.CANCELLED]}
        for each in (state, *ends.get(state, ())):
            self._append((batch.number, request_id, *where, peer.peer_id, "pad", each.value, _ms_since(sent_at)))

    def _append(self, row: Row) -> None:
        with self._lock:
            if len(self._rows) >= MAX_WAITING:
                self._rows.popleft()
                self._dropped += 1
            self._rows.append(row)

    def take(self, most: int) -> tuple[list[Row], int]:
        """Take the oldest rows, at most `most`; also returns how many were dropped before them."""
        with self._lock:
            rows = [self._rows.popleft() for _ in range(min(most, len(self._rows)))]
            dropped, self._dropped = self._dropped, 0
        return rows, dropped

    def clear(self) -> None:
        """Drop all rows, because nobody watches any more."""
        with self._lock:
            self._rows.clear()
            self._dropped = 0


def _ms_since(sent_at: float) -> float:
    """Milliseconds since it was sent; 0 if it was not sent."""
    return round((time.monotonic() - sent_at) * 1000, 2) if sent_at else 0.0
