"""How many files and connections this process may have open: raised as far as is useful, refused where it is too few.

libzmq aborts the process where it finds no descriptor for one of its threads, so this is settled before it is asked.
"""

from __future__ import annotations

import resource

from node.errors import ConfigError

NEEDED = 256
"""A node at rest has about 64 open; each link, lane and client takes up to three."""
WANTED = 65536


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may, 65536 at most; how many that are. Raises ConfigError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if most < NEEDED:
        raise ConfigError(
            f"this process may open {most} files and connections, a node needs {NEEDED}: raise the hard limit "
            "(`ulimit -Hn`, LimitNOFILE= in a systemd unit, or /etc/security/limits.conf)"
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return most if soft == resource.RLIM_INFINITY else soft
