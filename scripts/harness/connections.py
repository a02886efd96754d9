"""TCP connections of a process that this program started, ended from outside as a router that forgets them does.

Linux only: `pidfd_getfd` lends a descriptor of a child, and a TCP socket that is connected to nowhere
(`AF_UNSPEC`) sends a reset at once, whoever else holds it. libzmq, aiohttp or whatever owns the descriptor finds a
broken connection.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

import psutil

PIDFD_GETFD = 438
"""Number of the system call, the same on every architecture."""

_libc = ctypes.CDLL(None, use_errno=True)


def listening_ports(pid: int) -> set[int]:
    """TCP ports that a process listens on."""
    return {
        entry.laddr.port for entry in psutil.Process(pid).net_connections("tcp") if entry.status == psutil.CONN_LISTEN
    }


def reset_connections(pid: int, ports: set[int]) -> int:
    """Reset each established connection of a process from or to one of these ports; how many there were."""
    done = 0
    for entry in psutil.Process(pid).net_connections("tcp"):
        if entry.status != psutil.CONN_ESTABLISHED or not {entry.laddr.port, entry.raddr.port} & ports:
            continue
        done += _reset(pid, entry.fd)
    return done


def _reset(pid: int, descriptor: int) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        lent = _libc.syscall(PIDFD_GETFD, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)
    if lent < 0:
        return False  # closed meanwhile
    try:
        nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
        return bool(_libc.connect(lent, nowhere, len(nowhere)) == 0)
    finally:
        os.close(lent)
