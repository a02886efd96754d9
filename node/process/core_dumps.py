"""Keeps prompts, keys and tokens of this process out of core files.

This takes two measures. The limit of zero keeps the kernel from writing a file, but not from piping the core to a
program (systemd-coredump, apport); the filter of zero leaves all memory out of both. A third, PR_SET_DUMPABLE, is not
used: it gives the files of /proc/PID to root, so that the user's own tools could no longer see how much memory or how
many descriptors the node has, and it would only stop programs of this same user.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

FILTER = Path("/proc/self/coredump_filter")
"""Which kinds of memory a core holds; only on Linux. Child processes inherit it."""


def forbid_core_dumps() -> None:
    """Forbid core dumps of this process and its children, as far as the system allows."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        FILTER.write_text("0")
