"""How programs of the same user reach a running node.

<data dir>/control.sock    Unix socket, mode 0600
<data dir>/control.path    if that path is too long for a socket: the socket's path, in a directory of mode 0700
<data dir>/gateway.token   the token for management over TCP, mode 0600; created once and kept
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from node.errors import ConfigError
from node.paths import create_private

SOCKET_NAME = "control.sock"
POINTER_NAME = "control.path"
TOKEN_NAME = "gateway.token"
TOKEN_BYTES = 32
MAX_SOCKET_PATH_BYTES = 100
"""Longer paths do not fit a Unix socket's address (108 bytes on Linux, 104 elsewhere)."""


def socket_path(data_dir: Path) -> Path:
    """Path of the socket of the node on a data directory, whether the node runs or not."""
    pointer = data_dir / POINTER_NAME
    try:
        return Path(pointer.read_text().strip()) if pointer.exists() else data_dir.resolve() / SOCKET_NAME
    except OSError as exc:
        raise ConfigError(f"cannot read {pointer}: {exc.strerror}") from exc


def new_socket_path(data_dir: Path) -> Path:
    """Path for the socket of a starting node: nothing exists there, and only this user has access to its folder."""
    (data_dir / POINTER_NAME).unlink(missing_ok=True)
    path = data_dir.resolve() / SOCKET_NAME
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix="kekahyde-")) / SOCKET_NAME
        (data_dir / POINTER_NAME).write_text(str(path))
    path.unlink(missing_ok=True)
    return path


def remove_socket(data_dir: Path, path: Path) -> None:
    """Remove all files of the socket when the node stops."""
    path.unlink(missing_ok=True)
    if path.parent != data_dir.resolve():
        (data_dir / POINTER_NAME).unlink(missing_ok=True)
        path.parent.rmdir()


def read_token(data_dir: Path) -> str | None:
    """The stored token; None if there is none. Raises ConfigError for an invalid token."""
    path = data_dir / TOKEN_NAME
    try:
        token = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it holds no text"
        raise ConfigError(f"cannot read {path}: {reason}; delete the file, a new one is made") from exc
    if len(token) < TOKEN_BYTES:
        raise ConfigError(f"the token in {path} is too short: delete the file, a new one is made")
    return token


def token_of(data_dir: Path) -> str:
    """The token of this data directory; the first call creates it."""
    path = data_dir / TOKEN_NAME
    try:
        if not path.exists():
            create_private(path, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n".encode())
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc
    token = read_token(data_dir)
    assert token is not None, "it was there a moment ago"
    return token
