"""What a machine takes away from a process for a while: descriptors, and the room on its disk."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

SPARE_DESCRIPTORS = 2


@contextmanager
def few_descriptors(pid: int) -> Iterator[None]:
    """It can open hardly any more files and connections than it has."""
    with _limited(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds() + SPARE_DESCRIPTORS):
        yield


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """Every write to a file fails (EFBIG here, where a full disk says ENOSPC)."""
    with _limited(pid, resource.RLIMIT_FSIZE, 0):
        yield


@contextmanager
def _limited(pid: int, which: int, most: int) -> Iterator[None]:
    process = psutil.Process(pid)
    soft, hard = process.rlimit(which)
    process.rlimit(which, (most, hard))
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(which, (soft, hard))
