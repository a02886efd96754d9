"""Exact integer arithmetic and row-invariant float arithmetic, behind one interface.

    interface       `Kernels`: what a backend offers, and the constants of the arithmetic
    checks          checks shapes, dtypes and contiguity in one place
    portable        `PortableKernels`: only numpy, the reference
    native          `NativeKernels`: C at the machine's instruction-set level (AVX-512 VNNI, AVX2, NEON or plain)
    native_floats   its float half
    layers          whole decoder layers in one call each: what a backend needs for it
    native_layers   the same in C
    native_library  the extension, pointers, threads
    cuda            the two linear layers on a GPU through torch, the rest from another backend
    delegating      `DelegatingKernels`: forwards every call; cuda and mutants in tests are subclasses
    selftest        tests exactness at every start; a backend that fails is refused
    speed           measures how fast this device multiplies
    build_kernels   compiles kernels.c at install; optional

The C code: kernels.c has the exports; levels.h the instruction sets and the dispatch; linear.h uses tile_*.h on
limbs.h; layer.h is a whole layer, team.h the threads; residues.h, project.h, rows.h, attention.h and lanes.h are
compiled once for each level through wide.h.

Use `select_kernels`: it gives the fastest backend of this machine that passed its test.
"""

import os
from pathlib import Path
from typing import Final

from node.errors import ConfigError
from node.kernels.interface import Kernels
from node.kernels.portable import PortableKernels
from node.kernels.selftest import self_test
from node.process.allowance import available_cores

__all__ = ["Kernels", "every_backend", "has_same_floats", "select_kernels"]

CHOICE_VARIABLE: Final = "KEKAHYDE_KERNELS"
"""Environment variable that forces a backend: "portable", "c", or a level by name, such as "c-avx2"."""

CUDA_DRIVER_PATHS: Final = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))
"""One of these exists if an NVIDIA driver is loaded, so torch need not be imported to find out that there is none."""


def select_kernels(threads: int | None = None) -> Kernels:
    """The fastest backend that is exact on this machine.

    Args:
        threads: number of threads for a large call; None takes every core that this process may use.

    Raises:
        ConfigError: the backend in KEKAHYDE_KERNELS does not exist or run here; or all failed their self-tests.
    """
    kernels = _cpu_kernels(threads or available_cores(), os.environ.get(CHOICE_VARIABLE, ""))
    return kernels if os.environ.get(CHOICE_VARIABLE) else _on_gpu(kernels)


def has_same_floats(kernels: Kernels) -> bool:
    """Whether its floats have the same bits as those of the C backend on any other machine: sums of sixteen lanes in
    a fixed order, no contraction, an own exponential function. A GPU takes only the exact integers."""
    return kernels.name.startswith("c-")


def _cpu_kernels(threads: int, choice: str) -> Kernels:
    """The tested CPU backend that the choice allows."""
    if choice not in ("", "portable", "c") and not choice.startswith("c-"):
        raise ConfigError(f'{CHOICE_VARIABLE} is {choice!r}: expected "portable", "c" or a level such as "c-avx2"')
    reason = f"{CHOICE_VARIABLE} asks for it"
    if choice != "portable":
        native, reason = _native(threads, choice if choice.startswith("c-") else None)
        if native is not None:
            return native
        if choice:
            raise ConfigError(f"{CHOICE_VARIABLE} is {choice!r}, but {reason}")
    return _tested(PortableKernels(threads, note=reason))


def every_backend(threads: int = 1) -> list[Kernels]:
    """Each backend and level that this machine's processor can run, fastest first: for tests and benchmarks."""
    backends: list[Kernels] = [PortableKernels(threads)]
    try:
        from .native import NativeKernels
        from .native_library import native_levels

        return [NativeKernels(threads, level) for level in native_levels()] + backends
    except ImportError:
        return backends


def _native(threads: int, level: str | None) -> tuple[Kernels | None, str]:
    """The C backend, or why there is none."""
    try:
        from .native import NativeKernels

        kernels = NativeKernels(threads, level, note=None if level is None else f"{CHOICE_VARIABLE} asks for it")
    except ImportError:
        return None, "the C kernels were not built: no working C compiler was found at install"
    except ValueError as error:
        return None, str(error)
    failure = self_test(kernels)
    return (kernels, "") if failure is None else (None, failure)


def _on_gpu(base: Kernels) -> Kernels:
    """The backend with its linear layers on the GPU if there is one; torch is imported only then."""
    if not any(path.exists() for path in CUDA_DRIVER_PATHS):
        return base
    from node.kernels.cuda import cuda_kernels

    kernels, reason = cuda_kernels(base)
    if kernels is not None:
        return kernels
    base.note = f"the GPU is not used: {reason}"
    return base


def _tested(kernels: Kernels) -> Kernels:
    """The backend, if it passes its test; raises ConfigError if not, because there is no other."""
    failure = self_test(kernels)
    if failure is not None:
        raise ConfigError(f"no kernels can be trusted on this machine: {failure}; please report it with the CPU")
    return kernels
