"""The cffi extension for the native kernels: levels, pointers into arrays, and work on several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Implementation.
INLINE_OPERATIONS: Final = 1 << 19
"""Calls with fewer multiply-adds run inline: at 10-80 per nanosecond, giving them to a thread (~20 us) costs more."""
OUTCOME_NO_MEMORY: Final = 1
OUTCOME_REFUSED: Final = 2
"""Outcomes of C functions that can fail, as in limbs.h."""

Task = Callable[[int, int], int | None]


def load_library() -> Any:
    """The extension module; raises ImportError if it was not built."""
    return import_module("node.kernels._kernels")


def _all_levels(library: Any) -> list[str]:
    """The levels of this build in the order of their index."""
    count = library.lib.kernel_level_count()
    return [library.ffi.string(library.lib.kernel_level_name(i)).decode() for i in range(count)]


def native_levels() -> list[str]:
    """The levels of this build that this machine can run, fastest first; ImportError without the extension."""
    library = load_library()
    names = enumerate(_all_levels(library))
    return [name for i, name in names if library.lib.kernel_level_runs_here(i)][::-1]


class NativeLibrary:
    """One level of the extension, and the threads for its large calls."""

    def __init__(self, threads: int, level: str | None) -> None:
        runs_here = native_levels()
        if level is not None and level not in runs_here:
            raise ValueError(f"level {level!r} is not among those that run here: {', '.join(runs_here)}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        library = load_library()
        self.name = level or runs_here[0]
        self.threads = threads
        self.lib: Any = library.lib
        self.ffi: Any = library.ffi
        self._from_buffer: Any = library.ffi.from_buffer
        self.level = _all_levels(library).index(self.name)
        self._types = {
            np.dtype(scalar).char: library.ffi.typeof(f"{name}[]")
            for scalar, name in (
                (np.int8, "int8_t"),
                (np.int16, "int16_t"),
                (np.int32, "int32_t"),
                (np.int64, "int64_t"),
                (np.uint32, "uint32_t"),
                (np.uint64, "uint64_t"),
                (np.float32, "float"),
            )
        }
        team = library.lib.kernel_team_new(threads - 1) if threads > 1 else library.ffi.NULL
        self.team: Any = library.ffi.gc(team, library.lib.kernel_team_free) if team else team
        """Helpers of the linear layers; they wait by themselves, which a pool of Python threads cannot do."""
        self._pool = ThreadPoolExecutor(threads - 1, "kernels") if threads > 1 else None

    def address(self, function: str) -> int:
        """Where a function of the extension begins."""
        return int(self.ffi.cast("uintptr_t", self.ffi.addressof(self.lib, function)))

    def pointer(self, array: NDArray[Any]) -> Any:
        """The elements of a C-contiguous array; the pointer keeps them alive."""
        return self._from_buffer(self._types[array.dtype.char], array)

    def strided_pointer(self, array: NDArray[np.float32]) -> Any:
        """The elements of an array that may be strided along axis 0; the caller keeps it alive."""
        return self.ffi.cast("float *", array.ctypes.data)

    def spread(self, task: Task, num_items: int, num_operations: int) -> None:
        """Run the task over [0, num_items), in one piece per thread if the work is large enough."""
        if self._pool is None or num_operations < INLINE_OPERATIONS or num_items < 2:
            raise_outcome(task(0, num_items))
            return
        num_pieces = min(self.threads, num_items)
        cuts = [num_items * i // num_pieces for i in range(num_pieces + 1)]
        futures = [self._pool.submit(task, cuts[i], cuts[i + 1]) for i in range(1, num_pieces)]
        try:
            outcomes = [task(cuts[0], cuts[1])]
        finally:  # no thread may still write when the arrays are released
            others = [future.result() for future in futures]
        for outcome in outcomes + others:
            raise_outcome(outcome)


def raise_outcome(outcome: int | None) -> None:
    """Raises the exception for the outcome of a C function."""
    if outcome == OUTCOME_NO_MEMORY:
        raise MemoryError("no memory for the workspace of a kernel")
    if outcome == OUTCOME_REFUSED:
        raise ValueError("rows hold a value out of range: an element that is not below p, or beyond 12 bits")
