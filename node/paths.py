"""The paths of a node's files, and its identity key.

<data dir>/identity.key   32-byte Ed25519 seed, mode 0600, in a directory of mode 0700
<data dir>/node.lock      locked by the node that runs on this directory
<data dir>/names.json     names that the user gave to devices
<data dir>/gateway.port   port of the gateway at the last start, where the directory is not the default one
<data dir>/published.json models that the swarm is asked to hold
<data dir>/replicas.json  models of others of which parts are held here
<data dir>/models/        imported models
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import platformdirs
from msgspec import Struct

from node.errors import ConfigError
from protocol.identity import Identity

IDENTITY_BYTES = 32


def default_data_dir() -> Path:
    """The platform's folder for an application's data."""
    return Path(platformdirs.user_data_dir("kekahyde", appauthor=False))


class DataDir(Struct, frozen=True):
    """A data directory that exists and is writable."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> DataDir:
        """Create it if needed; raises ConfigError, which names path, reason and what to do."""
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = path / f".write-test.{os.getpid()}.{secrets.token_hex(4)}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise ConfigError(
                f"cannot use the data directory {path}: {exc.strerror}; give one you may write with --data-dir"
            ) from exc
        return cls(path)

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def guards(self) -> Path:
        """The file of guards and their places; only the process that holds the lock writes it."""
        return self.path / "guards.json"

    @property
    def measures(self) -> Path:
        """The file of peers' figures; only the process that holds the lock writes it."""
        return self.path / "measures.json"

    @property
    def lending(self) -> Path:
        """The file of the owner's rules for what is computed for others."""
        return self.path / "lending.json"

    @property
    def published(self) -> Path:
        """The file of the models that the user put on the swarm."""
        return self.path / "published.json"

    @property
    def replicas(self) -> Path:
        """The file of the models that others published."""
        return self.path / "replicas.json"

    @property
    def names(self) -> Path:
        """The file of the names that the user gave to devices."""
        return self.path / "names.json"

    def identity(self) -> Identity:
        """The node's key; the first call creates it, completely or not at all."""
        path = self.path / "identity.key"
        try:
            if not path.exists():
                create_private(path, secrets.token_bytes(IDENTITY_BYTES))
            seed = path.read_bytes()
        except OSError as exc:
            raise ConfigError(f"cannot read the identity {path}: {exc.strerror}") from exc
        if len(seed) != IDENTITY_BYTES:
            raise ConfigError(
                f"the identity {path} has {len(seed)} bytes instead of {IDENTITY_BYTES}: restore it from a backup, "
                "or move it away to become a new node"
            )
        return Identity.from_seed(seed)

    def remove_left_behind(self) -> None:
        """Remove what processes that were killed had begun to write; it may hold secrets. Files of others stay."""
        begun = [*self.path.glob(".*.*.*.tmp"), *self.models.glob(".*.*.*.tmp")]
        for path in begun:
            pid = path.name.split(".")[-3]
            if pid.isdecimal() and not _runs(int(pid)):
                path.unlink(missing_ok=True)

    def lock(self) -> IO[bytes] | None:
        """An exclusive lock while the file is open; None if another node holds it."""
        try:
            file = (self.path / "node.lock").open("ab")
        except OSError as exc:
            raise ConfigError(
                f"cannot use {self.path / 'node.lock'}: {exc.strerror}; make it writable for this user, "
                "or give another --data-dir"
            ) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Meanwhile no other process can start and write these files; raises ConfigError if one uses them already.

        A node keeps in memory what it has read: it would write over what another process wrote.
        """
        lock = self.lock()
        if lock is None:
            raise ConfigError(f"another process uses {self.path}: try again when it has ended")
        with lock:
            yield


def _runs(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def create_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, completely or not at all, unless it exists already."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(temporary, path)  # the first process wins; the other reads its file
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
