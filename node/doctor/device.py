"""Checks of the device: compiler, kernels, disk, clock."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from node.doctor.finding import Finding, broken, note, ok
from node.errors import ConfigError
from node.kernels import select_kernels
from node.kernels.selftest import self_test

LITTLE_DISK_BYTES = 2 << 30
NO_DISK_BYTES = 100 << 20
EARLIEST_UNIX_S = 1_767_225_600
"""1 January 2026: a clock that shows an earlier time was never set."""
COMPILERS = ("cc", "gcc", "clang")


def device_findings(data_dir: Path) -> list[Finding]:
    """All checks that need no node and no network."""
    return [_disk(data_dir), _clock(time.time()), *_kernels()]


def _kernels() -> list[Finding]:
    """Test the kernels; a compiler matters only if the fast ones are missing."""
    try:
        kernels = select_kernels(1)
    except ConfigError as exc:
        return [broken("kernels", str(exc), "unset KEKAHYDE_KERNELS, or install the program again")]
    failure = self_test(kernels)
    if failure is not None:
        return [broken("kernels", failure, "report it with the name of the processor; the node must not compute")]
    compiler = os.environ.get("CC") or next(filter(shutil.which, COMPILERS), None)
    if kernels.name == "portable":
        step = (
            "install the program again" if compiler else "install a C compiler (gcc or clang), then the program again"
        )
        found = [note("kernels", f"exact, but slow: {kernels.name} ({kernels.note})", step)]
    else:
        found = [ok("kernels", f"{kernels.name}, self-test passed" + (f"; {kernels.note}" if kernels.note else ""))]
    if compiler:
        return [*found, ok("compiler", compiler)]
    return [*found, note("compiler", "there is none; it is needed only to install the fast kernels from source")]


def _disk(data_dir: Path) -> Finding:
    folder = next(path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free for {data_dir}"
    step = "make room, or give a --data-dir on another disk: models are large"
    if free < NO_DISK_BYTES:
        return broken("disk", text, step)
    return note("disk", text, step) if free < LITTLE_DISK_BYTES else ok("disk", text)


def _clock(unix_s: float) -> Finding:
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))
    if unix_s < EARLIEST_UNIX_S:
        step = "set the clock (timedatectl set-ntp true): expiries and records depend on it"
        return broken("clock", f"it shows {said}, which is long past", step)
    return ok("clock", said)
