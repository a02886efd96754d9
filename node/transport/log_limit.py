"""A bound on what strangers can make a node write into its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

BURST = 10
LINES_A_SECOND = 0.2


class LogLimit:
    """Lets a burst of lines through, then one now and then, and counts what it kept back."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._credit = float(BURST)
        self._at = clock()
        self._kept_back = 0

    def warning(self, message: str, *arguments: object, exc_info: bool = False) -> None:
        """Log a warning, with the exception that is being handled where `exc_info`, unless there were too many."""
        self._write(logging.WARNING, message, arguments, exc_info)

    def info(self, message: str, *arguments: object) -> None:
        """Log a line of information, unless there were too many."""
        self._write(logging.INFO, message, arguments, False)

    def _write(self, level: int, message: str, arguments: tuple[object, ...], exc_info: bool) -> None:
        now = self._clock()
        self._credit = min(BURST, self._credit + (now - self._at) * LINES_A_SECOND)
        self._at = now
        if self._credit < 1.0:
            self._kept_back += 1
            return
        self._credit -= 1.0
        if self._kept_back:
            self._log.log(level, "%d lines like the next one were left out", self._kept_back)
            self._kept_back = 0
        self._log.log(level, message, *arguments, exc_info=exc_info)
