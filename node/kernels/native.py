"""The C backend: `Kernels` with the cffi extension.

A kernel call releases the interpreter lock, so plain threads are enough. Work is cut along output rows, columns or
head groups, never along a sum, so the number of threads cannot change a bit. Small calls run inline, since a token
needs about a hundred of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.kernels import checks
from node.kernels.interface import Int16s, NativeFunctions
from node.kernels.layers import LayerParts, LayerShape
from node.kernels.native_floats import NativeFloats
from node.kernels.native_layers import NativeLayers
from node.kernels.native_library import raise_outcome
from protocol.linear.field import Elements, Sums, Weights


class NativeKernels(NativeFloats):
    """`Kernels` in C, at one instruction-set level: the fastest that runs here unless one is named."""

    keeps_weights = False

    def __init__(self, threads: int = 1, level: str | None = None, note: str | None = None) -> None:
        super().__init__(threads, level)
        self.note = note
        self.functions: NativeFunctions | None = NativeFunctions(
            self.level,
            self.address("kernel_dots_agree"),
            self.address("kernel_merge"),
            self.address("kernel_share"),
            self.address("kernel_linear_field"),
            self.address("kernel_layer"),
            int(self.ffi.cast("uintptr_t", self.team)),
        )

    # ---- linear layers ----

    def linear_a12(self, weights: Weights, rows: Int16s) -> Sums:
        weights, rows = checks.linear(weights, rows, np.int16)
        sums = np.empty((rows.shape[0], weights.shape[0]), np.int32)
        self._linear(self.lib.kernel_linear_a12, weights, rows, sums)
        return sums

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        weights, rows = checks.linear(weights, rows, np.uint32)
        sums = np.empty((rows.shape[0], weights.shape[0]), np.uint32)
        self._linear(self.lib.kernel_linear_field, weights, rows, sums)
        return sums

    def _linear(self, kernel: Any, weights: Weights, rows: NDArray[Any], sums: NDArray[Any]) -> None:
        read = self.pointer(weights), self.pointer(rows)
        raise_outcome(kernel(self.level, self.team, *read, *weights.shape, rows.shape[0], self.pointer(sums)))

    def fused_layers(self, layers: Sequence[LayerParts], shape: LayerShape) -> NativeLayers:
        return NativeLayers(self, layers, shape)

    # ---- the field ----

    def share(self, rows: Int16s, pads: Elements) -> Elements:
        rows, pads = checks.twins(rows, pads, ("rows", "pads"), np.int16)
        shares = np.empty(rows.shape, np.uint32)
        read = self.pointer(rows), self.pointer(pads)
        self.lib.kernel_share(self.level, *read, rows.size, self.pointer(shares))
        return shares

    def merge(self, first: Elements, second: Elements) -> Sums:
        first, second = checks.twins(first, second, ("first", "second"), np.uint32)
        sums = np.empty(first.shape, np.int32)
        read = self.pointer(first), self.pointer(second)
        self.lib.kernel_merge(self.level, *read, first.size, self.pointer(sums))
        return sums

    def centre(self, elements: Elements) -> Sums:
        elements = checks.array(elements, "elements", np.uint32, 2)
        integers = np.empty(elements.shape, np.int32)
        self.lib.kernel_centre(self.level, self.pointer(elements), elements.size, self.pointer(integers))
        return integers

    def dots_agree(self, vectors: Elements, outputs: Elements, projections: Elements, inputs: Elements) -> bool:
        vectors, outputs, projections, inputs = checks.dots(vectors, outputs, projections, inputs)
        read = [self.pointer(array) for array in (vectors, outputs, projections, inputs)]
        sizes = len(vectors), len(outputs), outputs.shape[1], inputs.shape[1]
        return bool(self.lib.kernel_dots_agree(self.level, *read, *sizes))

    def field_combine(self, coefficients: Elements, rows: Elements) -> Elements:
        coefficients, rows = checks.combination(coefficients, rows)
        combined = np.empty((coefficients.shape[0], rows.shape[1]), np.uint32)
        read = self.pointer(coefficients), self.pointer(rows)
        sizes = coefficients.shape[0], *rows.shape
        self.lib.kernel_field_combine(self.level, *read, *sizes, self.pointer(combined))
        return combined

    def field_project(self, vectors: Elements, weights: Weights) -> Elements:
        vectors, weights = checks.projection(vectors, weights)
        projected = np.zeros((vectors.shape[0], weights.shape[1]), np.uint32)
        read, written = (self.pointer(vectors), self.pointer(weights)), self.pointer(projected)
        sizes = vectors.shape[0], *weights.shape

        def task(start: int, stop: int) -> None:
            self.lib.kernel_field_project(self.level, *read, *sizes, start, stop, written)

        self.spread(task, weights.shape[1], weights.size * vectors.shape[0])
        return projected

    def all_canonical(self, elements: Elements) -> bool:
        elements = checks.array(elements, "elements", np.uint32)
        return bool(self.lib.kernel_all_canonical(self.level, self.pointer(elements), elements.size))

    # ---- measurement ----

    def read_sum(self, words: NDArray[np.uint64]) -> int:
        """The sum mod 2^64 of a buffer [n], with all threads: for benchmarks of pure memory reads."""
        words = checks.array(words, "words", np.uint64, 1)
        read = self.pointer(words)
        sums = []

        def task(start: int, stop: int) -> None:
            sums.append(int(self.lib.kernel_read_sum(self.level, read + start, stop - start)))

        self.spread(task, words.size, words.size)
        return sum(sums) % 2**64
