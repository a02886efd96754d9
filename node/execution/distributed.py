"""`execute_distributed`: computes one exact linear layer through the lanes of a session, step by step.

`LayerUnderWay` is the same in two halves: between them, this device may do something else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.errors import UnitUnavailableError
from node.execution.chunk import ChunkRecord
from node.execution.interrupt import PassCancelledError
from node.execution.manager import ExecutionManager
from node.execution.recovery import Recovery
from node.execution.unit_pass import Compute, Merge, UnitPass, Wait
from node.model.unit import Unit
from protocol.linear.field import Floats, Sums


def execute_distributed(
    manager: ExecutionManager, unit: Unit, rows: NDArray[np.int16], floats: Floats | None = None
) -> Sums:
    """`W x` for `rows [T, K]` int16 -> `[T, N]` int32, the same bits as the local kernel gives.

    All chunks are sent before it waits for the first. A chunk is merged when both its halves are verified. A chunk
    that is refused, lost or late is computed here, or by other peers if the weights are not here. It returns only
    when every row is computed.

    Raises:
        PassCancelledError: the pass was cancelled, with all of its chunks.
        UnitUnavailableError: the weights are not here, and no peer computed the chunk in time.

    Args:
        floats: `[T, K]` f32, the values before quantization, for lanes of trusted devices.
    """
    return LayerUnderWay(manager, unit, rows, floats).settle()


class LayerUnderWay:
    """One linear layer of a wave, whose chunks are sent when it is made. Its rows must not change before it is
    settled.

    Args:
        rows: all rows of the wave.

    Raises:
        PassCancelledError: the pass was cancelled.
    """

    def __init__(
        self,
        manager: ExecutionManager,
        unit: Unit,
        rows: NDArray[np.int16],
        floats: Floats | None = None,
        wave: int = 0,
    ) -> None:
        manager.check_wanted()
        self._manager, self._unit, self._rows, self._floats = manager, unit, rows, floats
        self._chunks: UnitPass = manager.plan(unit, wave)
        self._first = self._chunks.records[0].chunk.row_start
        assert self._first + len(rows) == self._chunks.records[-1].chunk.row_end, "the rows of this wave"
        try:
            for record in self._chunks.records:
                manager.dispatch(record, unit, *self._own(record))
            for record in self._chunks.records:
                manager.complete_pads(record)
        except BaseException:
            self.cancel()
            raise

    def settle(self) -> Sums:
        """The sums of all rows `[T, N]`, in their order; raises as `execute_distributed`."""
        try:
            parts = self._settled()
        except (PassCancelledError, UnitUnavailableError):
            self.cancel()
            raise
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def cancel(self) -> None:
        """Cancel what is not merged yet, and tell the peers."""
        for record in self._chunks.records:
            self._manager.cancel_chunk(record)

    def _settled(self) -> list[Sums]:
        manager, unit, parts = self._manager, self._unit, list[Sums]()
        if len(self._chunks.records) == 1 and (sums := manager.settle_directly(self._chunks.records[0])) is not None:
            return [sums]
        manager.check_wanted()
        while (step := self._chunks.next(manager.now())) is not None:
            match step:
                case Merge(record):
                    parts.append(manager.merge(record))
                case Compute(record) if unit.held is None:
                    parts.append(Recovery(manager, record, unit, *self._own(record)).settle())
                case Compute(record, late):
                    parts.append(manager.compute_locally(record, unit, self._own(record)[0], late))
                case Wait(record, seconds):
                    manager.wait_for(record, seconds)
                    manager.check_wanted()
        return parts

    def _own(self, record: ChunkRecord) -> tuple[NDArray[np.int16], Floats | None]:
        """The rows of a chunk."""
        own = slice(record.chunk.row_start - self._first, record.chunk.row_end - self._first)
        return self._rows[own], None if self._floats is None else self._floats[own]
