"""When a thread that is asked for more than it can do does nothing but listen: pure arithmetic, `now` passed in.

A system lets a thread that has slept run before one that has computed all along. So where somebody asks for one thing
at a time, and others for as much as they can get, those get half of the time: in the other half the thread waits, and
runs as soon as the single request comes. Among several who each ask for one thing at a time nobody waits.
"""

from __future__ import annotations

import math

RECENT_S = 0.05
"""Whoever asked for one thing so long ago is expected to ask again."""
MIN_BREAK_S = 0.001
"""What a poll can wait, at least."""


class Breaks:
    """Of one thread."""

    def __init__(self) -> None:
        self._single_at = -math.inf
        self._owed_s = 0.0
        self._until = -math.inf

    def saw_single(self, now: float) -> None:
        """Somebody waits who asks for one thing at a time: nobody rests."""
        self._single_at, self._until = now, -math.inf

    def worked(self, seconds: float, now: float) -> None:
        """So much was done for others than those."""
        if now - self._single_at > RECENT_S:
            self._owed_s = 0.0
            return
        self._owed_s += seconds
        if self._owed_s >= MIN_BREAK_S:
            self._until, self._owed_s = now + self._owed_s, 0.0

    def left_s(self, now: float) -> float:
        """How long the thread listens from now on before it works again; 0 or less: no longer."""
        return self._until - now
