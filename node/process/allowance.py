"""Memory and cores that this process may use: of the machine, or of the control group (container) that holds it.

The limits of all groups count, from the process's own group up to the highest visible one. Both versions of control
groups are supported. A group that cannot be read limits nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

ROOT = Path("/")


class _Files(Struct, frozen=True):
    """The file names of one version of control groups."""

    memory_limits: tuple[str, ...]
    memory_used: str
    reclaimable: tuple[str, ...]
    """Lines of memory.stat: pages that can be read from the disk again, of a group and those in it."""


_V1 = _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Files(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"))


def total_memory(root: Path = ROOT) -> int:
    """Most bytes that this process could have."""
    return min([_of_machine("MemTotal"), *(limit for limit, _ in _memory_limits(root))])


def available_memory(root: Path = ROOT) -> int:
    """Bytes that this process can take now without anything being swapped or killed."""
    return min([_of_machine("MemAvailable"), *(max(0, limit - used) for limit, used in _memory_limits(root))])


def available_cores(root: Path = ROOT) -> int:
    """Cores that this process may use at once; a part of one counts as one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def _of_machine(name: str) -> int:
    """A line of /proc/meminfo, in bytes; all memory of the machine if there is no such line."""
    for line in _read(ROOT / "proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """For every group: its limit, and how much of it is used and cannot be reclaimed."""
    for folder, files in _groups(root, "memory"):
        limits = [limit for name in files.memory_limits if (limit := _number(folder / name)) is not None]
        if limits:
            used = _number(folder / files.memory_used) or 0
            yield min(limits), max(0, used - _reclaimable(folder / "memory.stat", files.reclaimable))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """For every group with a quota: seconds of computing per second."""
    for folder, files in _groups(root, "cpu"):
        if files is _V1:
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        else:
            words = [*_read(folder / "cpu.max").split(), "", ""]
            quota, period = _as_number(words[0]), _as_number(words[1])
        if quota and period and quota > 0:
            yield quota / period


def _reclaimable(path: Path, names: tuple[str, ...]) -> int:
    pairs = (line.split(" ", 1) for line in _read(path).splitlines() if " " in line)
    return sum(_as_number(value) or 0 for name, value in pairs if name in names)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, _Files]]:
    """Folders of the groups that hold this process, its own first, in each hierarchy that may limit `controller`."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        is_unified = number == "0" and not controllers
        if not is_unified and controller not in controllers.split(","):
            continue
        for top, mounted in _mounts(root, None if is_unified else controller):
            yield from ((folder, _V2 if is_unified else _V1) for folder in _upwards(top, mounted, path))


def _upwards(top: Path, mounted: str, path: str) -> list[Path]:
    """The folders from a group's up to that of the mount. Inside a container `path` may be a name that only the host
    knows: then the mounted group is the container's own."""
    within = PurePosixPath(path)
    inside = within.relative_to(mounted) if within.is_relative_to(mounted) else PurePosixPath()
    if ".." in inside.parts or not (top / inside).is_dir():
        inside = PurePosixPath()
    return [top / part for part in (inside, *inside.parents)]


def _mounts(root: Path, controller: str | None) -> Iterator[tuple[Path, str]]:
    """Where a hierarchy is mounted, and which of its groups is mounted there; None: the unified one (version 2)."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(" "), after.split(" ")
        if len(place) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" if controller is None else kind[0] == "cgroup" and controller in kind[2].split(","):
            yield root / place[4].lstrip("/"), place[3]


def _number(path: Path) -> int | None:
    return _as_number(_read(path))


def _as_number(text: str) -> int | None:
    """The number; None for "max" and anything else that is not a number."""
    try:
        return int(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
