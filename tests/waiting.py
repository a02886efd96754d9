"""Waiting in tests for what must happen, and never for what must not."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(happened: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
    """Look again and again until it is true; fails saying `what` where it never becomes so."""
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
