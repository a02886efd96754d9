"""Memory that nobody uses any more goes back to the system.

glibc keeps what is freed, in an arena for every thread, and sessions that have ended lie about in cycles until Python
looks for such: a node that answered once in a while held three times what it needs.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Free what is unreachable and return free memory; some tens of milliseconds, so at rest alone."""
    gc.collect()
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    """glibc's malloc_trim, or nothing where this is another C library."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda pad: None
    return trim
