"""Deadlines of one state machine, by name. It reads no clock: the time is an argument."""

from __future__ import annotations

import heapq
import math
from enum import IntEnum


class Timer(IntEnum):
    """What a deadline is for."""

    PROBE = 1
    ANSWER = 2
    HELP = 3
    SUSPICION = 4
    GOSSIP = 5
    SYNC = 6
    REFUTE = 7
    SWEEP = 8


Name = tuple[Timer, bytes]
"""The kind, and the public key that it concerns (empty where it concerns the node itself)."""


class Timers:
    """At most one deadline for each name; setting, cancelling and taking cost O(log n)."""

    def __init__(self) -> None:
        self._at: dict[Name, float] = {}
        self._heap: list[tuple[float, Name]] = []

    def set(self, kind: Timer, at: float, key: bytes = b"") -> None:
        """Set or move a deadline."""
        self._at[kind, key] = at
        heapq.heappush(self._heap, (at, (kind, key)))

    def set_earlier(self, kind: Timer, at: float, key: bytes = b"") -> None:
        """Set a deadline unless there is one before it."""
        if at < self._at.get((kind, key), math.inf):
            self.set(kind, at, key)

    def cancel(self, kind: Timer, key: bytes = b"") -> None:
        self._at.pop((kind, key), None)

    def next(self) -> float:
        """The earliest deadline; infinity where there is none."""
        while self._heap:
            at, name = self._heap[0]
            if self._at.get(name) == at:
                return at
            heapq.heappop(self._heap)
        return math.inf

    def take(self, now: float) -> Name | None:
        """A deadline that has passed, removed; the earliest first."""
        if self.next() > now:
            return None
        _, name = heapq.heappop(self._heap)
        del self._at[name]
        return name
