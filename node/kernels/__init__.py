"""Exact integer arithmetic and row-invariant float arithmetic, behind one seam.

interface        `Kernels`: what a backend offers, and the constants of the arithmetic
checks           shapes, dtypes and contiguity, refused in one place
portable         `PortableKernels`: numpy alone, the reference
native           `NativeKernels`: C at the machine's instruction-set level (AVX-512 VNNI, AVX2, NEON or plain)
native_floats    its float half; native_library: the extension, pointers, threads
cuda             the two linear layers on a GPU through torch, the rest from another backend
selftest         exactness, tested at every start; who fails is refused
build_kernels    compiles kernels.c at install; optional

The C side, one file an idea: kernels.c exports; levels.h instruction sets and dispatch; linear.h drives tile_*.h over
limbs.h; residues.h, project.h, rows.h, attention.h and lanes.h are compiled once for each level through wide.h.

`select_kernels` is the way in: the fastest backend of this machine that passed its test.
"""

import os
from typing import Final

from .interface import Kernels
from .portable import PortableKernels
from .selftest import self_test

__all__ = ["Kernels", "select_kernels"]

CHOICE_VARIABLE: Final = "KEKAHYDE_KERNELS"
"""Environment variable that forces a backend: "portable", "c", or a level by name, such as "c-avx2"."""


def select_kernels(threads: int | None = None) -> Kernels:
    """The fastest backend that is exact on this machine.

    Args:
        threads: threads that a large call is spread over; None takes every core this process may use.

    Raises:
        ValueError: KEKAHYDE_KERNELS names nothing that exists.
        RuntimeError: the backend that it names does not run here, or every backend failed its self-test.
    """
    threads = threads or available_cores()
    choice = os.environ.get(CHOICE_VARIABLE, "")
    if choice not in ("", "portable", "c") and not choice.startswith("c-"):
        raise ValueError(f'{CHOICE_VARIABLE} is {choice!r}: expected "portable", "c" or a level such as "c-avx2"')
    reason = f"{CHOICE_VARIABLE} asks for it"
    if choice != "portable":
        native, reason = _native(threads, choice if choice.startswith("c-") else None)
        if native is not None:
            return native
        if choice:
            raise RuntimeError(f"{CHOICE_VARIABLE} is {choice!r}, but {reason}")
    return _tested(PortableKernels(threads, note=reason))


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _native(threads: int, level: str | None) -> tuple[Kernels | None, str]:
    """The C backend, or why there is none."""
    try:
        from .native import NativeKernels

        kernels = NativeKernels(threads, level, note=None if level is None else f"{CHOICE_VARIABLE} asks for it")
    except ImportError:
        return None, "the C kernels were not built: no C compiler was found at install"
    except ValueError as error:
        return None, str(error)
    failure = self_test(kernels)
    return (kernels, "") if failure is None else (None, failure)


def _tested(kernels: Kernels) -> Kernels:
    """The backend itself, if it passes; there is nothing to fall back on."""
    failure = self_test(kernels)
    if failure is not None:
        raise RuntimeError(failure)
    return kernels
