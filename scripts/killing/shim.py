"""Processes that end as by kill -9 at a chosen call that changes a folder.

`shim.c` is compiled into a temporary folder and loaded before the C library when this program starts again with it;
a fork of the program then sets at which call it dies. Nothing of the product knows of it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
PRELOAD = "LD_PRELOAD"
FAILED = 3
"""Exit code of a process whose work raised."""


class ShimError(Exception):
    """The library could not be compiled or is not loaded."""


def with_shim(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a program with the library; its exit code. Raises ShimError without a C compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise ShimError("no C compiler was found: install gcc")
    with tempfile.TemporaryDirectory(prefix="kekahyde-shim-") as folder:
        library = Path(folder) / "shim.so"
        build = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        built = subprocess.run(build, capture_output=True, text=True)
        if built.returncode:
            raise ShimError(f"the library cannot be compiled: {built.stderr[-500:]}")
        return subprocess.run(list(command), env={**environment, PRELOAD: str(library)}).returncode


def is_loaded() -> bool:
    """Whether this process has the library."""
    return hasattr(ctypes.CDLL(None), "shim_arm")


def forked(work: Callable[[], object], folder: Path, call: int, half: bool, said: Path) -> int:
    """Do something in a fork that dies at its n-th call that changes `folder`; what `waitpid` says of it.

    Args:
        call: 0: at none.
        said: what the fork writes to stdout and stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = FAILED
    try:
        with said.open("wb") as output, open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        if call:
            ctypes.CDLL(None).shim_arm(os.fsencode(folder), call, int(half))
        work()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def was_killed(status: int) -> bool:
    """Whether a process ended as by kill -9."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
