"""The C backend: `Kernels` over the cffi extension, with large calls spread over threads.

A kernel call releases the interpreter lock, so plain threads suffice. Work is cut along output rows, columns or
head groups, never along a sum: the number of threads cannot change a bit. Small calls run inline, since a token
makes about a hundred of them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import checks
from .interface import Floats, Int8s, Int16s, Int32s, Int64s, Words

# Implementation.
INLINE_OPERATIONS: Final = 1 << 19
"""Multiply-adds below which a call runs inline: at 10-80 a nanosecond a hand-over of ~20 us would not pay."""
OUTCOME_NO_MEMORY: Final = 1
OUTCOME_REFUSED: Final = 2
"""Outcomes of C functions that can fail, as in limbs.h."""

Task = Callable[[int, int], int | None]


def load_library() -> Any:
    """The extension module; ImportError where it was not built."""
    from . import _kernels

    return _kernels


def native_levels() -> list[str]:
    """The levels of this build that this machine can run, fastest first; ImportError without the extension."""
    library = load_library()
    lib: Any = library.lib
    runs_here = [i for i in reversed(range(lib.kernel_level_count())) if lib.kernel_level_runs_here(i)]
    return [library.ffi.string(lib.kernel_level_name(i)).decode() for i in runs_here]


class NativeKernels:
    """`Kernels` in C, at one instruction-set level."""

    def __init__(self, threads: int = 1, level: str | None = None, note: str | None = None) -> None:
        levels = native_levels()
        if level is not None and level not in levels:
            raise ValueError(f"level {level!r} is not among those that run here: {', '.join(levels)}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        library = load_library()
        self._lib: Any = library.lib
        self._buffer: Any = library.ffi.from_buffer
        self._null: Any = library.ffi.NULL
        self._pointer_types = {
            char: library.ffi.typeof(f"{name}[]")
            for char, name in (("b", "int8_t"), ("h", "int16_t"), ("i", "int32_t"), ("I", "uint32_t"),
                               ("l", "int64_t"), ("q", "int64_t"), ("L", "uint32_t"), ("f", "float"))
        }  # fmt: skip
        self.name = level or levels[0]
        self._level = self._index_of(library, self.name)
        self.note = note
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "kernels") if threads > 1 else None

    @staticmethod
    def _index_of(library: Any, name: str) -> int:
        names = [library.ffi.string(library.lib.kernel_level_name(i)).decode() for i in
                 range(library.lib.kernel_level_count())]  # fmt: skip
        return names.index(name)

    def _pointer(self, array: NDArray[Any]) -> Any:
        """A pointer to a C-contiguous array's elements; it keeps the array alive."""
        return self._buffer(self._pointer_types[array.dtype.char], array)

    def _strided_pointer(self, array: NDArray[Any]) -> Any:
        """The same where axis 0 is strided; the caller keeps the array alive."""
        return self._pointer(array if array.flags.c_contiguous else _whole(array))

    def _spread(self, task: Task, num_items: int, num_operations: int) -> None:
        """Run the task over [0, num_items), in one piece a thread where the work is large enough."""
        if self._pool is None or num_operations < INLINE_OPERATIONS or num_items < 2:
            _raise_outcome(task(0, num_items))
            return
        num_pieces = min(self.threads, num_items)
        cuts = [num_items * i // num_pieces for i in range(num_pieces + 1)]
        futures = [self._pool.submit(task, cuts[i], cuts[i + 1]) for i in range(1, num_pieces)]
        outcomes = [task(cuts[0], cuts[1]), *(future.result() for future in futures)]
        for outcome in outcomes:
            _raise_outcome(outcome)

    # ---- linear layers ----

    def linear_a12(self, weights: Int8s, rows: Int16s) -> Int32s:
        weights, rows = checks.linear(weights, rows, np.int16)
        sums = np.empty((rows.shape[0], weights.shape[0]), np.int32)
        self._linear(self._lib.kernel_linear_a12, weights, rows, sums)
        return sums

    def linear_field(self, weights: Int8s, rows: Words) -> Words:
        weights, rows = checks.linear(weights, rows, np.uint32)
        sums = np.empty((rows.shape[0], weights.shape[0]), np.uint32)
        self._linear(self._lib.kernel_linear_field, weights, rows, sums)
        return sums

    def _linear(self, kernel: Any, weights: Int8s, rows: NDArray[Any], sums: NDArray[Any]) -> None:
        num_outputs, num_inputs = weights.shape
        num_rows = rows.shape[0]
        read, written = (self._pointer(weights), self._pointer(rows)), self._pointer(sums)

        def task(start: int, stop: int) -> int:
            return kernel(self._level, *read, num_outputs, num_inputs, num_rows, start, stop, written)  # type: ignore[no-any-return]

        self._spread(task, num_outputs, weights.size * num_rows)

    # ---- the field ----

    def share(self, rows: Int16s, pads: Words) -> Words:
        rows, pads = checks.twins(rows, pads, ("rows", "pads"), np.int16)
        shares = np.empty(rows.shape, np.uint32)
        self._lib.kernel_share(self._level, self._pointer(rows), self._pointer(pads), rows.size, self._pointer(shares))
        return shares

    def merge(self, first: Words, second: Words) -> Int32s:
        first, second = checks.twins(first, second, ("first", "second"), np.uint32)
        sums = np.empty(first.shape, np.int32)
        read = self._pointer(first), self._pointer(second)
        self._lib.kernel_merge(self._level, *read, first.size, self._pointer(sums))
        return sums

    def centre(self, elements: Words) -> Int32s:
        elements = checks.array(elements, "elements", np.uint32, 2)
        integers = np.empty(elements.shape, np.int32)
        self._lib.kernel_centre(self._level, self._pointer(elements), elements.size, self._pointer(integers))
        return integers

    def field_dot(self, vectors: Words, rows: Words) -> Words:
        vectors, rows = checks.dot(vectors, rows)
        dots = np.empty((rows.shape[0], vectors.shape[0]), np.uint32)
        read = self._pointer(vectors), self._pointer(rows)
        self._lib.kernel_field_dot(self._level, *read, *dots.shape[::-1], rows.shape[1], self._pointer(dots))
        return dots

    def field_combine(self, coefficients: Words, rows: Words) -> Words:
        coefficients, rows = checks.combination(coefficients, rows)
        combined = np.empty((coefficients.shape[0], rows.shape[1]), np.uint32)
        read = self._pointer(coefficients), self._pointer(rows)
        sizes = *coefficients.shape, rows.shape[1]
        self._lib.kernel_field_combine(self._level, *read, *sizes, self._pointer(combined))
        return combined

    def field_project(self, vectors: Words, weights: Int8s) -> Words:
        vectors, weights = checks.projection(vectors, weights)
        projected = np.zeros((vectors.shape[0], weights.shape[1]), np.uint32)
        read, written = (self._pointer(vectors), self._pointer(weights)), self._pointer(projected)
        sizes = vectors.shape[0], *weights.shape

        def task(start: int, stop: int) -> None:
            self._lib.kernel_field_project(self._level, *read, *sizes, start, stop, written)

        self._spread(task, weights.shape[1], weights.size * vectors.shape[0])
        return projected

    def all_canonical(self, elements: Words) -> bool:
        elements = checks.array(elements, "elements", np.uint32)
        return bool(self._lib.kernel_all_canonical(self._level, self._pointer(elements), elements.size))

    # ---- floats ----

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[Int16s, Floats]:
        hidden = checks.array(hidden, "hidden", np.float32, 2)
        return self._quantized(hidden.shape, self._lib.kernel_quantize, self._pointer(hidden), max_row_norm)

    def norm_quantize(
        self, hidden: Floats, gain: Floats, epsilon: float, max_row_norm: float
    ) -> tuple[Int16s, Floats]:
        hidden, gain = checks.norm(hidden, gain)
        workspace = np.empty(hidden.shape[1], np.float32)

        def kernel(level: int, *arguments: Any) -> int:
            num_rows, width, bound, out, scales = arguments
            pointers = self._pointer(hidden), self._pointer(gain)
            return self._lib.kernel_norm_quantize(  # type: ignore[no-any-return]
                level, *pointers, num_rows, width, epsilon, bound, self._pointer(workspace), out, scales
            )

        return self._quantized(hidden.shape, kernel, None, max_row_norm)
