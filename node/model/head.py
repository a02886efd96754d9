"""The end of a forward pass: the final norm, and the head, whose sums an executor computes too (see `linear`)."""

from __future__ import annotations

import numpy as np

from node.kernels.interface import Kernels
from node.model.linear import LinearExecutor
from node.model.parts import ModelParts
from protocol.linear.field import Floats


class Head:
    """Turns hidden states into logits. It opens and checks the head's unit."""

    def __init__(self, model: ModelParts, kernels: Kernels, executor: LinearExecutor) -> None:
        self._unit = model.unit(None, "head")
        self._norm = model.final_norm
        self._epsilon = model.config.rms_norm_eps
        self._divisor, self._softcap = model.config.logits_divisor, model.config.logits_softcap
        self._kernels = kernels
        self._executor = executor

    def normed(self, hidden: Floats) -> Floats:
        """Hidden states f32[T, D] after the final norm, as f32[T, D]."""
        return self._kernels.rms_norm(np.ascontiguousarray(hidden), self._norm, self._epsilon)

    def logits(self, hidden: Floats) -> Floats:
        """f32[T, D] -> f32[T, V]; raises what the executor raises."""
        kernels, unit = self._kernels, self._unit
        self._executor.begin_step(len(hidden), [unit])
        if self._executor.wants_floats:
            floats = kernels.rms_norm(hidden, self._norm, self._epsilon)
            rows, scales = kernels.quantize(floats, unit.max_row_norm)
            sums = self._executor.linear(unit, rows, floats)
        else:
            rows, scales = kernels.norm_quantize(hidden, self._norm, self._epsilon, unit.max_row_norm)
            sums = self._executor.linear(unit, rows)
        logits = kernels.dequantize(sums, scales, unit.scales, None)
        if self._divisor != 1.0:
            logits /= np.float32(self._divisor)
        return logits if self._softcap is None else kernels.softcap(logits, self._softcap)
