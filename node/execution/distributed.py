"""`execute_distributed`: computes one exact linear layer through the lanes of a session, step by step.

`LayerUnderWay` is the same in two halves: between them, this device may do something else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.errors import UnitUnavailableError
from node.execution.chunk import ChunkRecord
from node.execution.exchange import Prepared
from node.execution.interrupt import PassCancelledError
from node.execution.manager import ExecutionManager
from node.execution.pads.batch import Ticket
from node.execution.recovery import Recovery
from node.execution.unit_pass import Compute, Merge, UnitPass, Wait
from node.model.linear import Continuation, Progress, Wanted, WentOn
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
        rows: all rows of the wave. None: they are not there yet, and `settle_onward` brings them; until then it is
            prepared as far as that goes.

    Raises:
        PassCancelledError: the pass was cancelled.
    """

    def __init__(
        self,
        manager: ExecutionManager,
        unit: Unit,
        rows: NDArray[np.int16] | None,
        floats: Floats | None = None,
        wave: int = 0,
    ) -> None:
        manager.check_wanted()
        self._manager, self._unit, self._floats, self._wave = manager, unit, floats, wave
        self._chunks: UnitPass = manager.plan(unit, wave)
        self._prepared: Prepared | None = None
        self._rows: NDArray[np.int16] | None = None
        if rows is not None:
            self._send(rows)
        elif len(self._chunks.records) == 1:
            self._prepared = manager.exchanges.prepare(self._chunks.records[0], unit)

    def settle(self) -> Sums:
        """The sums of all rows `[T, N]`, in their order; raises as `execute_distributed`."""
        sums, _nothing = self._settle(None)
        assert not isinstance(sums, WentOn), "nothing was said about how to go on"
        return sums

    def settle_onward(self, wanted: Wanted) -> Progress:
        """The sums of rows that may go on by themselves, and what was prepared for the unit that they want then;
        raises as `execute_distributed`."""
        assert wanted.unit is self._unit, "units are wanted in the order in which they were prepared"
        if self._rows is None:
            try:
                self._manager.check_wanted()
            except PassCancelledError:
                self.cancel()
                raise
            self._begin(wanted.rows)
        return self._settle(wanted.then)

    def cancel(self) -> None:
        """Cancel what is not merged yet, and tell the peers."""
        for record in self._chunks.records:
            self._manager.cancel_chunk(record)

    def _begin(self, rows: NDArray[np.int16]) -> None:
        """The rows of what was prepared are there; they were sent already if the previous ones went on so far."""
        record, prepared = self._chunks.records[0], self._prepared
        if record.share is not None:
            self._bring(rows)
        elif prepared is not None and self._manager.exchanges.is_good(prepared):
            self._send(rows, prepared.ticket)
        else:
            self._chunks = self._manager.plan(self._unit, self._wave)
            self._send(rows)

    def _bring(self, rows: NDArray[np.int16]) -> None:
        self._rows, self._first = rows, self._chunks.records[0].chunk.row_start
        assert self._first + len(rows) == self._chunks.records[-1].chunk.row_end, "the rows of this wave"

    def _send(self, rows: NDArray[np.int16], ticket: Ticket | None = None) -> None:
        """
        Args:
            ticket: the pads of the only chunk, where they were taken before.
        """
        self._bring(rows)
        try:
            for record in self._chunks.records:
                self._manager.dispatch(record, self._unit, *self._own(record), ticket)
            for record in self._chunks.records:
                self._manager.complete_pads(record)
        except BaseException:
            self.cancel()
            raise

    def _settle(self, then: Continuation | None) -> Progress:
        following: LayerUnderWay | None = None
        try:
            record = self._chunks.records[0]
            request = self._manager.exchanges.owed(record) if len(self._chunks.records) == 1 else None
            if request is not None:
                following = self._following(then)
                prepared = None if following is None else following._prepared
                sums = self._manager.exchanges.settle(record, request, then, prepared)
                if sums is not None:
                    return sums, following
            parts = self._settled()
            return parts[0] if len(parts) == 1 else np.concatenate(parts), following
        except (PassCancelledError, UnitUnavailableError):
            self.cancel()
            if following is not None:
                following.cancel()
            raise

    def _following(self, then: Continuation | None) -> LayerUnderWay | None:
        """What is wanted next, prepared; None where nothing can be prepared."""
        if then is None:
            return None
        following = LayerUnderWay(self._manager, then.unit, None)
        return None if following._prepared is None else following

    def _settled(self) -> list[Sums]:
        manager, unit, parts = self._manager, self._unit, list[Sums]()
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
        assert self._rows is not None, "they are there when it is sent"
        own = slice(record.chunk.row_start - self._first, record.chunk.row_end - self._first)
        return self._rows[own], None if self._floats is None else self._floats[own]
