"""Restarts a part of the node after an unexpected exception, and logs it.

A part that fails again and again is given up, and the node ends: a half-dead node must not look alive.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable

from protocol.errors import KekahydeError

log = logging.getLogger(__name__)

MAX_FAILURES = 8
"""One failure more than this ends the part."""
GOOD_S = 60.0
"""After so long without failures the count starts again: one failure an hour is no reason to end a node."""
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
"""First and longest pause before it goes on; each pause is twice the previous one: a part is given up after about
18 s."""


_SCARCITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
"""Failures with these errors are not bugs, and may be over in a moment."""


class GivenUpError(KekahydeError):
    """A part of the node failed so often that it was given up; the text names the part and the last failure."""


class Endurance:
    """Counts the failures of one part of a node."""

    def __init__(self, part: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._part = part
        self._clock = clock
        self._failures = 0
        self._failed_at = clock()

    def failed(self, exc: Exception) -> float:
        """Seconds to wait before it goes on. Raises GivenUpError if it failed too often."""
        now = self._clock()
        self._failures = 1 if now - self._failed_at > GOOD_S else self._failures + 1
        self._failed_at = now
        if getattr(exc, "errno", None) in _SCARCITY:  # a peer that uses up descriptors must not end the node
            self._failures = min(self._failures, MAX_FAILURES)
        if self._failures > MAX_FAILURES:
            raise GivenUpError(f"{self._part} failed {self._failures} times, last by {type(exc).__name__}") from exc
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self._failures - 1))
        log.error("%s failed and goes on in %.1f s", self._part, pause_s, exc_info=exc)
        return pause_s


async def endure(part: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`, again after each failure, until it returns, is cancelled or is given up (GivenUpError)."""
    endurance = Endurance(part)
    while True:
        try:
            return await work()
        except Exception as exc:
            pause_s = endurance.failed(exc)
        await asyncio.sleep(pause_s)
