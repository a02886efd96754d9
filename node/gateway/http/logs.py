"""Log lines for clients that watch: a ring of the latest lines, written by any thread. Secrets are never logged."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

KEPT_LINES = 500
MAX_MESSAGE_CHARACTERS = 2000


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a line of the HTTP server is worth logging. It is not if a client sent something other than HTTP (its
    answer says so), or left before it was answered."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError | ConnectionError)


class LogFeed(logging.Handler):
    """A handler that keeps the latest records as JSON values, each with a number."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT_LINES)
        self._numbers = itertools.count(1)
        self._reading = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:
            self.handleError(record)
            return
        line = {
            "type": "log",
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": message[:MAX_MESSAGE_CHARACTERS],
        }
        with self._reading:
            self._lines.append((next(self._numbers), line))

    def after(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        """The lines with a higher number, oldest first, without those that the ring has dropped."""
        with self._reading:
            return [(each, line) for each, line in self._lines if each > number]
