"""Returns unused memory to the system.

glibc keeps freed memory, in an arena for every thread, and ended sessions stay in reference cycles until Python
collects them: without this, a node that answered once in a while held three times the memory that it needs.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Free unreachable objects and return free memory. This takes tens of milliseconds, so call it only when idle."""
    gc.collect()
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    """glibc's malloc_trim, or a function that does nothing if this is another C library."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda pad: None
    return trim
