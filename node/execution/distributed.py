"""`execute_distributed`: computes one exact linear layer through the lanes of a session, step by step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.errors import UnitUnavailableError
from node.execution.interrupt import PassCancelledError
from node.execution.manager import ExecutionManager
from node.execution.recovery import Recovery
from node.execution.unit_pass import Compute, Merge, Send, UnitPass, Wait
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
    manager.check_wanted()
    chunks = manager.plan(unit, len(rows))
    try:
        return _executed(manager, chunks, unit, rows, floats)
    except (PassCancelledError, UnitUnavailableError):
        for record in chunks.records:
            manager.cancel_chunk(record)
        raise


def _executed(
    manager: ExecutionManager, chunks: UnitPass, unit: Unit, rows: NDArray[np.int16], floats: Floats | None
) -> Sums:
    parts: list[Sums] = []
    while (step := chunks.next(manager.now())) is not None:
        own = slice(step.record.chunk.row_start, step.record.chunk.row_end)
        own_floats = None if floats is None else floats[own]
        match step:
            case Send(record):
                manager.dispatch(record, unit, rows[own], own_floats)
            case Merge(record):
                parts.append(manager.merge(record))
            case Compute(record) if unit.held is None:
                parts.append(Recovery(manager, record, unit, rows[own], own_floats).settle())
            case Compute(record, late):
                parts.append(manager.compute_locally(record, unit, rows[own], late))
            case Wait(record, seconds):
                manager.wait_for(record, seconds)
                manager.check_wanted()
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
