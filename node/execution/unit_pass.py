"""Decides the next step for the chunks of one linear layer: a state machine without I/O; time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from node.execution.chunk import ChunkRecord, ChunkState


class Merge(Struct, frozen=True):
    """Both halves of a chunk are verified."""

    record: ChunkRecord


class Compute(Struct, frozen=True):
    """Compute a chunk here."""

    record: ChunkRecord
    late: bool = False
    """Whether its peers might still answer."""


class Wait(Struct, frozen=True):
    """Wait at most `seconds` for messages of the peers of a chunk."""

    record: ChunkRecord
    seconds: float


Step = Merge | Compute | Wait


class UnitPass:
    """All chunks of one linear layer in one wave of a forward pass, once they were sent: each is finished, in order.

    Messages of peers change the records; the caller of `next` applies them.
    """

    def __init__(self, records: Sequence[ChunkRecord], left_s: Callable[[ChunkRecord, float], float]) -> None:
        """
        Args:
            left_s: gives the seconds from now (the second argument) after which a sent chunk is late.
        """
        self.records = records
        self._left_s = left_s
        self._unsettled = deque(records)
        self._looked = False
        """Whether arrived messages were read since the first chunk became late."""

    def next(self, now: float) -> Step | None:
        """The next step; None once every chunk is merged."""
        while self._unsettled and self._unsettled[0].state is ChunkState.MERGED:
            self._unsettled.popleft()
            self._looked = False
        return self._settle(self._unsettled[0], now) if self._unsettled else None

    def _settle(self, record: ChunkRecord, now: float) -> Step:
        if record.is_ready:
            return Merge(record)
        is_under_way = record.state in (ChunkState.SENT, ChunkState.VERIFIED)
        if not is_under_way or record.ticket is None or record.ticket.failed:
            return Compute(record)
        left_s = self._left_s(record, now)
        if left_s <= 0 and self._looked:
            return Compute(record, late=True)
        # Time passes while chunks are sent: a chunk is late only after all arrived messages were read.
        self._looked = left_s <= 0
        return Wait(record, left_s)
