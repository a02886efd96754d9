"""`HybridExecutor`: one call for a linear layer, whether it is computed here or by peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from node.execution.distributed import LayerUnderWay, execute_distributed
from node.execution.interrupt import Interrupt
from node.execution.ledger import ChunkCounts, Timings
from node.execution.manager import ExecutionManager
from node.kernels.interface import Kernels
from node.model.linear import Progress, SumsHere, SumsUnderWay, Wanted
from node.model.unit import Unit
from node.planning.placement import ALL_HERE, Placement
from protocol.linear.field import Floats, Sums


class HybridExecutor:
    """A `LinearExecutor` that uses the lanes if there is a manager and the unit is lent, else the local kernel.

    The result is the same exact integers in both cases, so an answer never shows where a layer was computed.
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
        """Called when a pass begins, before its rows are cut. It may add lanes and change the placement."""
        self.went_through: Callable[[int], None] = lambda num_rows: None
        """Called when rows of a pass have gone through one more layer."""
        self._answered: tuple[Sequence[Unit], Placement, tuple[bool, ...]] | None = None
        """What `computed_here` was asked last, and for which placement; the answer is the same for every token."""
        self._counts = ChunkCounts()
        self._timings = Timings()

    @property
    def counts(self) -> ChunkCounts:
        return self._counts if self._manager is None else self._manager.counts

    @property
    def timings(self) -> Timings:
        return self._timings if self._manager is None else self._manager.timings

    def begin_step(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[range]:
        """A step of a forward pass begins: `num_rows` rows go through these units."""
        if self._manager is None:
            return [range(num_rows)]
        self._manager.hear()
        self.before_step()
        lent = [unit for unit in units if self.placement.is_lent(unit.ref)]
        most = 1 if self.wants_floats else most_waves  # rows before quantization go through `linear` alone
        return [range(wave.start, wave.end) for wave in self._manager.begin_step(num_rows, lent, most)]

    def computed_here(self, units: Sequence[Unit]) -> Sequence[bool]:
        placement = ALL_HERE if self._manager is None else self.placement
        if self._answered is None or self._answered[0] is not units or self._answered[1] != placement:
            here = tuple(unit.held is not None and not placement.is_lent(unit.ref) for unit in units)
            self._answered = units, placement, here
        return self._answered[2]

    def count_here(self, num_units: int, seconds: float) -> None:
        self.counts.local += num_units
        self.counts.merged += num_units
        self.timings.add("local", seconds)

    def check_wanted(self) -> None:
        if self._interrupt is not None:
            self._interrupt.check()

    @property
    def wants_floats(self) -> bool:
        """Whether plain rows are sent, in the trusted mode."""
        return self._manager is not None and self._manager.roster.plain

    def linear(self, unit: Unit, rows: NDArray[np.int16], floats: Floats | None = None) -> Sums:
        """`W x` for `rows [T, K]` int16 -> `[T, N]` int32; `floats` are the values before quantization."""
        if self._interrupt is not None:
            self._interrupt.check()
        if self._manager is not None and self.placement.is_lent(unit.ref):
            return execute_distributed(self._manager, unit, rows, floats)
        return self._here(unit, rows)

    def linear_onward(self, wanted: Wanted) -> Progress:
        """The same for rows that may go on by themselves."""
        if self._interrupt is not None:
            self._interrupt.check()
        if self._manager is not None and self.placement.is_lent(wanted.unit.ref):
            return LayerUnderWay(self._manager, wanted.unit, wanted.rows).settle_onward(wanted)
        return self._here(wanted.unit, wanted.rows), None

    def begin(self, unit: Unit, rows: NDArray[np.int16], wave: int) -> SumsUnderWay:
        """The same for one wave of a pass, without waiting for peers."""
        if self._interrupt is not None:
            self._interrupt.check()
        if self._manager is not None and self.placement.is_lent(unit.ref):
            return LayerUnderWay(self._manager, unit, rows, wave=wave)
        return SumsHere(self._here(unit, rows))

    def _here(self, unit: Unit, rows: NDArray[np.int16]) -> Sums:
        with self.timings.of("local"):
            sums = self._kernels.linear_a12(unit.weights, rows)
        if unit.ref.layer is not None:  # receipts count the head only if it is lent
            self.counts.local += 1
            self.counts.merged += 1
        return sums
