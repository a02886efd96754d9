"""No prompt, key or token of this process is left in a core file.

Two measures, since neither holds alone: the limit of zero keeps the kernel from writing a file, but not from piping
the core to a program (systemd-coredump, apport); the filter of zero leaves all memory out of either. The third,
PR_SET_DUMPABLE, is not taken: it gives the files of /proc/PID to root, so that the user's own tools could no longer
tell how much memory or how many descriptors the node has, and keeps nobody out who may not run programs as this user.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

FILTER = Path("/proc/self/coredump_filter")
"""Which kinds of memory a core holds; of Linux, inherited by what this process starts."""


def forbid_core_dumps() -> None:
    """For this process and all that it starts, as far as the system lets us."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        FILTER.write_text("0")
