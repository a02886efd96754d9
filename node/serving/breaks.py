"""When a thread that is asked for more than it can do does nothing but listen: pure arithmetic, `now` passed in.

Somebody asks for one thing at a time, others for as much as they can get. A request of the first waits where it comes
while the thread works for the others; and a system lets a thread that has slept run before one that has computed all
along. So after each single request the thread works for the others only in the first part of the time in which the
next one is not expected, and then listens. Where none comes, the others have half of the time, and soon all of it.
"""

from __future__ import annotations

import math

RECENT_S = 0.05
"""Whoever asked for one thing so long ago is expected to ask again."""
FIRST_GAP_S = 0.002
"""What is expected between an answer to a single request and the next one, before that was seen."""
WORK_PART = 0.5
"""Of that gap, the part in which the thread works for others."""
LATE_GAPS = 3.0
"""After so many gaps a single request is not expected at any moment any more."""
SOONER_WEIGHT = 0.5
LATER_WEIGHT = 0.05
"""A gap that was shorter, or longer, than expected is weighed in so: requests that come early must not wait."""
MIN_BREAK_S = 0.001
"""What a poll can wait, at least."""


class Breaks:
    """Of one thread."""

    def __init__(self) -> None:
        self._is_single = False
        """Whether a single request waited when it was looked at last."""
        self._single_at = -math.inf
        """When one waited last."""
        self._gap_s = FIRST_GAP_S
        self._owed_s = 0.0
        self._until = -math.inf

    def look(self, is_single: bool, now: float) -> None:
        """Whether somebody waits now who asks for one thing at a time: then nobody rests."""
        if is_single and not self._is_single and now - self._single_at <= RECENT_S:
            gap_s = now - self._single_at
            weight = SOONER_WEIGHT if gap_s < self._gap_s else LATER_WEIGHT
            self._gap_s += weight * (gap_s - self._gap_s)
        if is_single or self._is_single:  # it waits still, or has just been served
            self._single_at, self._owed_s, self._until = now, 0.0, -math.inf
        self._is_single = is_single

    def worked(self, seconds: float, now: float) -> None:
        """So much was done for others than those."""
        since_s = now - self._single_at
        if since_s > RECENT_S:
            self._owed_s = 0.0
            return
        if since_s <= LATE_GAPS * self._gap_s:
            return
        self._owed_s += seconds
        if self._owed_s >= MIN_BREAK_S:
            self._until, self._owed_s = now + self._owed_s, 0.0

    def left_s(self, now: float) -> float:
        """How long the thread listens from now on before it works again; 0 or less: no longer."""
        since_s = now - self._single_at
        if not self._is_single and WORK_PART * self._gap_s <= since_s < LATE_GAPS * self._gap_s:
            return LATE_GAPS * self._gap_s - since_s
        return self._until - now
