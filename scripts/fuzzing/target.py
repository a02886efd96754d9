"""A decoder under test: what it reads, what it may raise, and how much time and memory an input may take.

Memory is what the process grows by while it reads, as the system counts it: so native code counts too. Time is the
processor's, not the clock's: a busy machine changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.fuzzing.forms import RAW, Form

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAX_ERROR_CHARACTERS = 2000
"""Of the text of a declared error: it goes into a log or to a user."""


class FoundError(Exception):
    """A decoder broke its promise on an input; the text says how."""


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder."""

    name: str
    reads: str
    """What an input is, in a few words."""
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    """Only these may leave it."""
    seeds: Callable[[], Sequence[bytes]]
    """Real encodings, made by the program that also writes them."""
    form: Form = RAW
    max_bytes: int = 1 << 14
    """Longest input that is tried."""
    grows_bytes: int = 16 << 20
    """Most memory that an input may take, beside 64 bytes for each of its own."""
    time_s: float = 1.0

    @property
    def bound(self) -> str:
        """The bounds in words."""
        return f"{self.grows_bytes >> 20} MiB + 64 bytes a byte, {self.time_s:g} s"


class MemoryWatch:
    """By how much this process has grown at most, since it was asked to look."""

    def __init__(self) -> None:
        self._refs = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._size = os.open("/proc/self/statm", os.O_RDONLY)
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._before = 0

    def begin(self) -> None:
        """From now on."""
        self._before = int(os.pread(self._size, 128, 0).split()[1]) * PAGE_BYTES
        os.pwrite(self._refs, b"5", 0)  # the kernel forgets the highest resident size

    def grown_bytes(self) -> int:
        """Highest resident size since then, less that at its beginning."""
        status = os.pread(self._status, 8192, 0)
        at = status.index(b"VmHWM:")
        return max(0, int(status[at + 6 : status.index(b"kB", at)]) * 1024 - self._before)


def examine(target: Target, data: bytes, memory: MemoryWatch, slower: float = 1.0) -> int:
    """Read one input; returns by how many bytes the process grew.

    Args:
        slower: how many times slower the code is here, for instance because its coverage is recorded.

    Raises:
        FoundError: it raised what it does not declare, or took more memory or time than its bound.
    """
    memory.begin()
    started = time.thread_time()
    try:
        target.read(data)
    except target.errors as exc:
        if len(text := str(exc)) > MAX_ERROR_CHARACTERS:
            raise FoundError(f"{type(exc).__name__} has a text of {len(text)} characters") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # native libraries panic with errors that are no Exception
        raise FoundError(f"{type(exc).__name__} is not declared: {str(exc)[:200]}") from exc
    spent_s, grown = time.thread_time() - started, memory.grown_bytes()
    if spent_s > target.time_s * slower:
        raise FoundError(f"{spent_s:.1f} s for {len(data)} bytes")
    if grown > target.grows_bytes + 64 * len(data):
        raise FoundError(f"{grown >> 20} MiB for {len(data)} bytes")
    return grown
