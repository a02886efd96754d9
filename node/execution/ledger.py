"""Counts and times of a session, for its receipt."""

from __future__ import annotations

import time

from msgspec import Struct, field


class ChunkCounts(Struct):
    """Counts of a session's chunks; `merged = verified + local` always holds between two chunks."""

    sent: int = 0
    """Chunks whose share was sent to a peer (a retry of the same share counts once)."""
    verified: int = 0
    """Chunks merged from a peer's verified result."""
    rejected: int = 0
    """Results that the gate refused, of either role."""
    hedged: int = 0
    """Chunks computed locally because their peer was late; part of `local`."""
    local: int = 0
    """Chunks merged from this device's own computation."""
    merged: int = 0
    lost: int = 0
    """Chunks that were in flight when their peer's connection broke."""


class Stopwatch:
    """Adds the time of one block. A generator's context manager would take as long as some of the blocks."""

    __slots__ = ("_seconds", "_started", "_what")

    def __init__(self, seconds: dict[str, float], what: str) -> None:
        self._seconds, self._what = seconds, what

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_exc: object) -> None:
        self._seconds[self._what] = self._seconds.get(self._what, 0.0) + time.perf_counter() - self._started


class Timings(Struct):
    """Seconds of the session's thread by activity; the rest of the elapsed time is the model's own code."""

    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, what: str) -> Stopwatch:
        """Add the time of a block to `what`."""
        return Stopwatch(self.seconds, what)

    def since(self, what: str, started: float) -> float:
        """Add the time since `started`, by `time.perf_counter`; returns the time now. For what every chunk passes."""
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - started
        return now

    def add(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds
