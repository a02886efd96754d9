"""Writes files completely or not at all, and checks their hashes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.errors import ConfigError, CorruptModelError

BLOCK_BYTES = 4 << 20

_verified: set[tuple[str, int, int, int, bytes]] = set()
"""Files whose hash this process has already checked: path, inode, size, time of change, hash."""
_verified_lock = threading.Lock()


def sha256_file(path: Path) -> bytes:
    """SHA-256 over a file's bytes, a block at a time.

    Raises:
        CorruptModelError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as exc:
        raise CorruptModelError(f"{path} cannot be read ({exc.strerror}); import the model again") from exc


def verify_file(path: Path, expected: bytes) -> bool:
    """Checks a file's hash, once per process for an unchanged file; returns True if it read the file now.

    Raises:
        CorruptModelError: it has another hash, or cannot be read.
    """
    try:
        status = path.stat()
    except OSError as exc:
        raise CorruptModelError(f"{path} cannot be read ({exc.strerror}); import the model again") from exc
    key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns, expected)
    with _verified_lock:
        if key in _verified:
            return False
    actual = sha256_file(path)
    if actual != expected:
        raise CorruptModelError(
            f"{path} is damaged: its SHA-256 is {actual.hex()}, the manifest says {expected.hex()}; "
            "import the model again"
        )
    with _verified_lock:
        _verified.add(key)
    return True


def remember_moved(before: Path, after: Path) -> None:
    """A folder was renamed: its verified files stay verified."""
    with _verified_lock:
        for path, *rest in list(_verified):
            if path.startswith(f"{before}{os.sep}"):
                _verified.add((str(after / Path(path).relative_to(before)), *rest))  # type: ignore[arg-type]


def write_synced(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a new file; its bytes are on the disk when this returns. The umask applies to `mode`."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(content)
        sync(file.fileno())


def replace_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file so that a reader sees the old or the new content and nothing between, even after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        write_synced(temporary, content, mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace_private(path: Path, content: bytes) -> None:
    """The same for a file that only this user can read (mode 0600); raises ConfigError, which names the file."""
    try:
        replace_atomically(path, content, 0o600)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}; make room or give another --data-dir") from exc


def sync(descriptor: int) -> None:
    """Waits until a file's bytes are on the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing_to(models_dir: Path) -> Iterator[None]:
    """Turns an error of the file system into a ConfigError of one sentence."""
    try:
        yield
    except OSError as exc:
        raise ConfigError(
            f"models cannot be written to {models_dir}: {exc.strerror or exc}; free space there or choose another "
            "data directory with --data-dir"
        ) from exc
