"""`HybridExecutor`: one call for a linear layer, wherever it is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from node.execution.distributed import execute_distributed
from node.execution.interrupt import Interrupt
from node.execution.ledger import ChunkCounts, Timings
from node.execution.manager import ExecutionManager
from node.kernels.interface import Kernels
from node.model.unit import Unit
from node.planning.placement import ALL_HERE, Placement
from protocol.linear.field import Floats, Sums


class HybridExecutor:
    """A `LinearExecutor`: through the lanes where a manager is given and the unit is lent, else by the local kernel.

    Either way the result is the same exact integers, so where a layer is computed never shows in an answer.
    """

    def __init__(
        self,
        kernels: Kernels,
        manager: ExecutionManager | None = None,
        interrupt: Interrupt | None = None,
        placement: Placement = ALL_HERE,
    ) -> None:
        self._kernels = kernels
        self._manager = manager
        self._interrupt = interrupt
        self.placement = placement
        """Read when a pass begins."""
        self.before_step: Callable[[], None] = lambda: None
        """Called when a pass begins, before its rows are cut: the moment to add lanes and to change the placement."""
        self._counts = ChunkCounts()
        self._timings = Timings()

    @property
    def counts(self) -> ChunkCounts:
        return self._counts if self._manager is None else self._manager.counts

    @property
    def timings(self) -> Timings:
        return self._timings if self._manager is None else self._manager.timings

    def begin_step(self, num_rows: int, units: Sequence[Unit]) -> None:
        """A step of a forward pass begins: so many rows through these units."""
        if self._manager is None:
            return
        self._manager.hear()
        self.before_step()
        self._manager.begin_step(num_rows, [unit for unit in units if self.placement.is_lent(unit.ref)])

    @property
    def wants_floats(self) -> bool:
        """Whether rows leave as they are, in the trusted mode."""
        return self._manager is not None and self._manager.plain

    def linear(self, unit: Unit, rows: NDArray[np.int16], floats: Floats | None = None) -> Sums:
        """`W x` for `rows [T, K]` int16 -> `[T, N]` int32; `floats` is what they were quantized from."""
        if self._interrupt is not None:
            self._interrupt.check()
        if self._manager is not None and self.placement.is_lent(unit.ref):
            return execute_distributed(self._manager, unit, rows, floats)
        with self.timings.of("local"):
            sums = self._kernels.linear_a12(unit.weights, rows)
        if unit.ref.layer is not None:  # receipts count the head where it is lent
            self.counts.local += 1
            self.counts.merged += 1
        return sums
