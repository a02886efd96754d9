"""Holds little memory that is not used.

glibc keeps freed memory, in an arena for every thread, where no other thread can use it; and ended sessions stay in
reference cycles until Python collects them. Without this, a node that answered once in a while held three times the
memory that it needs.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from functools import cache

ARENA_MAX = -8
"""M_ARENA_MAX of glibc's mallopt (malloc.h)."""
ARENA_VARIABLE = "MALLOC_ARENA_MAX"
"""With this, the user says it himself (mallopt(3))."""


def share_one_arena() -> None:
    """Let all threads that begin from now on allocate from one arena. They seldom wait for each other: Python's take
    turns anyway, and a kernel allocates its workspace once a call."""
    if ARENA_VARIABLE not in os.environ and (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(ARENA_MAX, 1)


def give_back() -> None:
    """Free unreachable objects and return free memory. This takes tens of milliseconds, so call it only when idle."""
    gc.collect()
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


@cache
def _of_glibc(name: str) -> Callable[..., object] | None:
    """A function of glibc; None if this is another C library."""
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return function
