"""Raises the limit of open files and connections of this process, and refuses to start if it is too low.

libzmq aborts the process if it finds no descriptor for one of its threads, so this is checked before libzmq starts;
and if it finds none for a connection over a Unix socket, so the gate makes none when few are left.
"""

from __future__ import annotations

import os
import resource

from node.errors import ConfigError

NEEDED = 256
"""An idle node has about 64 open; each link, lane and client needs up to three."""
WANTED = 65536


def can_open(count: int) -> bool:
    """Whether this process can open so many files and connections more now."""
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as allowed, to 65536 at most; returns it. Raises ConfigError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if most < NEEDED:
        raise ConfigError(
            f"this process may open {most} files and connections, but a node needs {NEEDED}: raise the hard limit "
            "(`ulimit -Hn`, LimitNOFILE= in a systemd unit, or /etc/security/limits.conf)"
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return most if soft == resource.RLIM_INFINITY else soft
