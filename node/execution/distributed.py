"""`execute_distributed`: one exact linear layer through the lanes of a session, in the order of a chunk's life."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.interrupt import PassCancelledError
from node.execution.manager import ExecutionManager
from node.model.unit import Unit
from protocol.linear.field import Floats, Sums


def execute_distributed(
    manager: ExecutionManager, unit: Unit, rows: NDArray[np.int16], floats: Floats | None = None
) -> Sums:
    """`W x` for `rows [T, K]` int16 -> `[T, N]` int32, the same bits as the local kernel gives.

    All chunks are sent before the first is waited for. A chunk is merged when both its halves are verified; one
    that is refused, lost or late is computed here. Returns only when every row is there; raises PassCancelledError,
    with every chunk called off, where nobody wants them any more.

    Args:
        floats: `[T, K]` f32, what `rows` was quantized from, for lanes of trusted devices.
    """
    manager.check_wanted()
    records = manager.plan(unit, len(rows))
    try:
        for record in records:
            own = slice(record.chunk.row_start, record.chunk.row_end)
            manager.dispatch(record, unit, rows[own], None if floats is None else floats[own])
        return _all_settled(manager, records, unit, rows)
    except PassCancelledError:
        for record in records:
            manager.cancel_chunk(record)
        raise


def _all_settled(
    manager: ExecutionManager, records: Sequence[ChunkRecord], unit: Unit, rows: NDArray[np.int16]
) -> Sums:
    if len(records) == 1:
        return _settle(manager, records[0], unit, rows)
    sums = np.empty((len(rows), unit.ref.num_outputs), dtype=np.int32)
    for record in records:
        start, end = record.chunk.row_start, record.chunk.row_end
        sums[start:end] = _settle(manager, record, unit, rows[start:end])
    return sums


def _settle(manager: ExecutionManager, record: ChunkRecord, unit: Unit, rows: NDArray[np.int16]) -> Sums:
    """Wait until one chunk is merged, from its peers or from here; the others make progress meanwhile.

    Time passes while chunks are sent, so a chunk is late only once what has already arrived was read.
    """
    looked = False
    while True:
        if manager.ready(record):
            return manager.merge(record)
        if record.state not in (ChunkState.SENT, ChunkState.VERIFIED) or record.ticket.failed:
            return manager.compute_locally(record, unit, rows)
        left_s = manager.left_s(record)
        if left_s <= 0 and looked:
            return manager.compute_locally(record, unit, rows, late=True)
        looked = left_s <= 0
        manager.wait_for(record, left_s)
        manager.check_wanted()
