"""Writes a file that only this user can read, completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

PART = ".part"


def write_private(path: Path, text: str) -> None:
    """Replace the file, mode 0600; its folder is made if needed, mode 0700. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_parts(path)
    part = path.with_suffix(f".{os.getpid()}{PART}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def remove_private(path: Path) -> None:
    """Remove the file, and what killed processes had begun to write of it. Raises OSError."""
    _remove_parts(path)
    path.unlink(missing_ok=True)


def _remove_parts(path: Path) -> None:
    """Remove what processes that are gone have begun to write of a file."""
    for part in path.parent.glob(f"{path.stem}.*{PART}"):
        pid = part.suffixes[-2][1:]
        if pid.isdecimal() and not _runs(int(pid)):
            part.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
