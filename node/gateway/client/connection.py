"""The socket of a running node. It imports no HTTP, because every `run` checks for a node and must start fast."""

from __future__ import annotations

import socket
from pathlib import Path

from node.errors import NodeNotRunningError
from node.places import socket_path

CONNECT_TIMEOUT_S = 5.0


def node_runs(data_dir: Path) -> bool:
    """Whether a node answers on this data directory's socket."""
    try:
        connect(data_dir).close()
    except NodeNotRunningError:
        return False
    return True


def connect(data_dir: Path, answer_timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A connection to the node that runs on `data_dir`; raises NodeNotRunningError if none runs."""
    path = socket_path(data_dir)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except OSError as exc:
        connection.close()
        raise NodeNotRunningError(
            f"no node runs on {data_dir}: start one with `kekahyde-node --data-dir {data_dir}`"
        ) from exc
    connection.settimeout(answer_timeout_s)
    return connection
