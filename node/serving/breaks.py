"""When a thread that is asked for more than it can do does nothing but listen: pure arithmetic, `now` passed in.

One peer asks for one thing at a time, others for as much as they can get. A request of the first peer has to wait
where it comes while the thread works for the others; and a system prefers a thread that has slept to one that has
computed all along. So after a single request the thread works for the others only in the first part of the time in
which the next one is not expected, and then listens; where requests come fast, only after every second one. Where
none comes, the others have half of the time, and soon all of it.
"""

from __future__ import annotations

import math

RECENT_S = 0.05
"""A peer that asked for one thing is expected to ask again for this long."""
FIRST_GAP_S = 0.002
"""Expected gap between the answer to a single request and the next request, before any was measured."""
WORK_PART = 0.5
"""Part of that gap in which the thread works for others."""
LATE_GAPS = 3.0
"""After so many gaps without one, a single request is no longer expected."""
SOONER_WEIGHT = 0.5
LATER_WEIGHT = 0.05
"""Weights of a gap that was shorter, or longer, than expected: requests that come early must not wait."""
SHORT_GAP_S = 0.005
"""Where the expected gap is not longer, the others have every second one: each part of their work delays the threads
that receive and send."""
MIN_PART_S = 0.0003
"""The shortest part of work for the others: they go on, however often the first peer asks."""
MIN_BREAK_S = 0.001
"""The shortest time that a poll can wait."""


class Breaks:
    """Of one thread."""

    def __init__(self) -> None:
        self._is_single = False
        """Whether a single request waited at the last look."""
        self._single_at = -math.inf
        """When one waited last."""
        self._is_free = False
        """Whether the others may have the time until the next one."""
        self._gap_s = FIRST_GAP_S
        self._owed_s = 0.0
        self._until = -math.inf

    def look(self, is_single: bool, now: float) -> None:
        """Told whether a peer waits now that asks for one thing at a time: then the thread does not rest."""
        if is_single and not self._is_single:
            self._is_free = not self._is_free or self._gap_s > SHORT_GAP_S
            gap_s = now - self._single_at
            if gap_s <= RECENT_S:
                weight = SOONER_WEIGHT if gap_s < self._gap_s else LATER_WEIGHT
                self._gap_s += weight * (gap_s - self._gap_s)
        if is_single or self._is_single:  # it still waits, or has just been served
            self._single_at, self._owed_s, self._until = now, 0.0, -math.inf
        self._is_single = is_single

    def worked(self, seconds: float, now: float) -> None:
        """The thread worked this long for other peers."""
        since_s = now - self._single_at
        if since_s > RECENT_S:
            self._owed_s = 0.0
            return
        if since_s <= LATE_GAPS * self._gap_s:
            return
        self._owed_s += seconds
        if self._owed_s >= MIN_BREAK_S:
            self._until, self._owed_s = now + self._owed_s, 0.0

    def part_s(self, now: float) -> float:
        """How long a part of the others' work may take that begins now: it ends before a single request is expected,
        because two threads that work at once wait for each other. Infinite where none is expected."""
        since_s = now - self._single_at
        if since_s >= LATE_GAPS * self._gap_s:
            return math.inf
        return max(MIN_PART_S, WORK_PART * self._gap_s - since_s)

    def left_s(self, now: float) -> float:
        """How long the thread listens from now on before it works again; 0 or less: no longer."""
        since_s = now - self._single_at
        work_s = WORK_PART * self._gap_s if self._is_free else 0.0
        if not self._is_single and work_s <= since_s < LATE_GAPS * self._gap_s:
            return LATE_GAPS * self._gap_s - since_s
        return self._until - now
