"""The float part of the C backend: row-invariant, with the same bits at every level of one build."""

from typing import Any

import numpy as np

from node.kernels import checks
from node.kernels.interface import ACTIVATIONS, Activation, Int16s, Int64s, NotFiniteError
from node.kernels.native_library import NativeLibrary
from protocol.linear.field import Floats, Sums


class NativeFloats(NativeLibrary):
    """The float methods of `Kernels` in C."""

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[Int16s, Floats]:
        hidden = checks.array(hidden, "hidden", np.float32, 2)
        return self._quantized(self.lib.kernel_quantize, hidden.shape, max_row_norm, self.pointer(hidden))

    def norm_quantize(
        self, hidden: Floats, gain: Floats, epsilon: float, max_row_norm: float
    ) -> tuple[Int16s, Floats]:
        hidden, gain = checks.norm(hidden, gain)
        workspace = np.empty(hidden.shape[1], np.float32)
        inputs = self.pointer(hidden), self.pointer(workspace), self.pointer(gain), epsilon
        return self._quantized(self.lib.kernel_norm_quantize, hidden.shape, max_row_norm, *inputs)

    def gated_quantize(
        self, gate_up: Floats, max_row_norm: float, activation: Activation = "silu"
    ) -> tuple[Int16s, Floats]:
        gate_up = checks.gated(gate_up)
        shape = gate_up.shape[0], gate_up.shape[1] // 2
        workspace = np.empty(shape[1], np.float32)
        inputs = self.pointer(gate_up), self.pointer(workspace), ACTIVATIONS.index(activation)
        return self._quantized(self.lib.kernel_gated_quantize, shape, max_row_norm, *inputs)

    def gated(self, gate_up: Floats, activation: Activation = "silu") -> Floats:
        """Calls the kernel for one row at a time: it leaves the row before rounding in its workspace."""
        gate_up = checks.gated(gate_up)
        width = gate_up.shape[1] // 2
        gated = np.empty((gate_up.shape[0], width), np.float32)
        rounded, scale = np.empty((1, width), np.int16), np.empty(1, np.float32)
        outputs = self.pointer(rounded), self.pointer(scale)
        for row, result in zip(gate_up, gated, strict=True):
            inputs = self.pointer(row), self.pointer(result), ACTIVATIONS.index(activation)
            self.lib.kernel_gated_quantize(self.level, *outputs, 1, width, 1.0, *inputs)
        return gated

    def softcap(self, values: Floats, limit: float) -> Floats:
        values = checks.softcap(values, limit)
        capped = np.empty_like(values)
        self.lib.kernel_softcap(self.level, self.pointer(values), *values.shape, limit, self.pointer(capped))
        return capped

    def _quantized(
        self, kernel: Any, shape: tuple[int, ...], max_row_norm: float, *inputs: Any
    ) -> tuple[Int16s, Floats]:
        """Call a kernel that ends in the quantization rule, and refuse the row it stopped at."""
        bound = checks.row_norm(max_row_norm)
        rounded, scales = np.empty(shape, np.int16), np.empty(shape[0], np.float32)
        outputs = self.pointer(rounded), self.pointer(scales)
        num_done: int = kernel(self.level, *outputs, *shape, bound, *inputs)
        if num_done < shape[0]:
            raise NotFiniteError(num_done)
        return rounded, scales

    def dequantize(self, sums: Sums, row_scales: Floats, weight_scales: Floats, bias: Floats | None) -> Floats:
        sums, row_scales, weight_scales, bias = checks.dequantization(sums, row_scales, weight_scales, bias)
        values = np.empty(sums.shape, np.float32)
        scales = self.pointer(row_scales), self.pointer(weight_scales)
        offset = self.ffi.NULL if bias is None else self.pointer(bias)
        self.lib.kernel_dequantize(self.level, self.pointer(sums), *scales, offset, *sums.shape, self.pointer(values))
        return values

    def rms_norm(self, hidden: Floats, gain: Floats, epsilon: float) -> Floats:
        hidden, gain = checks.norm(hidden, gain)
        normed = np.empty_like(hidden)
        inputs = self.pointer(hidden), self.pointer(gain), *hidden.shape, epsilon
        self.lib.kernel_rms_norm(self.level, *inputs, self.pointer(normed))
        return normed

    def rope(self, heads: Floats, cos: Floats, sin: Floats) -> None:
        heads, cos, sin = checks.rotation(heads, cos, sin)
        num_rows, num_heads, head_size = heads.shape
        inputs = self.strided_pointer(heads), heads.strides[0] // 4, self.pointer(cos), self.pointer(sin)
        self.lib.kernel_rope(self.level, *inputs, num_rows, num_heads, head_size, cos.shape[1])

    def attention(
        self,
        queries: Floats,
        keys: Floats,
        values: Floats,
        positions: Int64s,
        window: int | None,
        scale: float,
        softcap: float | None = None,
    ) -> Floats:
        queries, keys, values, positions = checks.attention(queries, keys, values, positions, window, softcap)
        num_rows, num_heads, head_size = queries.shape
        num_groups = keys.shape[0]
        mixed = np.empty((num_rows, num_heads * head_size), np.float32)
        if not mixed.size:
            return mixed
        max_slots = int(positions.max()) + 1
        max_slots = max_slots if window is None else min(max_slots, window)
        arrays = queries, keys, values
        inputs = *map(self.strided_pointer, arrays), self.pointer(positions)
        sizes = num_groups, num_heads // num_groups, head_size, *(array.strides[0] // 4 for array in arrays)
        written = self.pointer(mixed)

        def task(start: int, stop: int) -> int:
            limits = window or 0, scale, softcap or 0.0, max_slots, start, stop
            return int(self.lib.kernel_attention(self.level, *inputs, *sizes, *limits, written))

        self.spread(task, num_rows * num_groups, 2 * num_rows * max_slots * num_heads * head_size)
        return mixed
