"""Exact integer arithmetic and row-invariant float arithmetic, behind one seam.

interface   `Kernels`: what a backend offers, and the constants of the arithmetic
checks      shapes, dtypes and contiguity, refused in one place
portable    `PortableKernels`: numpy alone, the reference

`select_kernels` is the way in: the fastest backend of this machine.
"""

import os

from .interface import Kernels
from .portable import PortableKernels

__all__ = ["Kernels", "select_kernels"]


def select_kernels(threads: int | None = None) -> Kernels:
    """The fastest backend that is exact on this machine.

    Args:
        threads: threads that a large call is spread over; None takes every core this process may use.
    """
    return PortableKernels(threads or os.cpu_count() or 1, note="the C kernels are not built yet")
