"""Handles a chunk whose lane failed and whose weights are not here: tries another lane, then borrowed weights.

A row that is sent again gets fresh pads. Whoever holds pads in a session never gets a share in it, so a second lane
lets one more pair of peers put the row together, and no single one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from msgspec.structs import replace

from node.errors import UnitUnavailableError
from node.execution.chunk import ChunkRecord, ChunkState
from node.model.unit import Unit, UnitRef
from protocol.linear.field import Floats, Sums, Weights

if TYPE_CHECKING:
    from node.execution.manager import ExecutionManager

TURN_S = 0.05
"""How often, at least, it checks whether a lane or the weights have come."""
GRACE_S = 2.0
"""A peer that works on a chunk, and is late, gets at least so long before anybody is asked for weights, and as long
as these may take to come; at most a quarter of the time for which a pass may stand still."""
AGAIN_S = 1.0
"""After so long, lanes that failed are tried again."""


class WeightLender(Protocol):
    """Fetches weights that are not here, for a while."""

    def ask(self, ref: UnitRef) -> None:
        """See that a unit comes; returns at once."""

    def weights(self, ref: UnitRef) -> Weights | None:
        """The weights of a unit, whole and verified; None while they are not there."""

    @property
    def trouble(self) -> str | None:
        """Why nothing comes now; None where that is not known."""


class NobodyLends:
    """Fetches nothing."""

    trouble = None

    def ask(self, ref: UnitRef) -> None:
        """Nobody is there to be asked."""

    def weights(self, ref: UnitRef) -> Weights | None:
        return None


class Recovery:
    """Settles one chunk of a unit that is not held here; belongs to the session's thread.

    Args:
        rows: `[num_rows, K]` int16, the chunk's own.
        floats: what they were quantized from, for lanes of trusted devices.
    """

    def __init__(
        self, manager: ExecutionManager, record: ChunkRecord, unit: Unit, rows: np.ndarray, floats: Floats | None
    ) -> None:
        self._manager = manager
        self._record = record
        self._unit = unit
        self._rows = rows
        self._floats = floats
        self._tried: set[int] = set() if record.lane is None else {record.lane}
        borrowing_s = unit.ref.num_bytes / manager.config.least_bytes_per_s
        self._grace_s = min(max(GRACE_S, borrowing_s), manager.config.progress_limit_s / 4)
        self._began = self._tried_since = manager.now()

    def settle(self) -> Sums:
        """The exact rows of the chunk: `[num_rows, N]` int32.

        Raises:
            UnitUnavailableError: for too long, nobody computed it and nobody had the weights.
            PassCancelledError: it is not wanted any more.
        """
        manager, record = self._manager, self._record
        while True:
            if record.is_ready:
                return manager.merge(record)
            under_way = self._under_way
            waited_s = manager.now() - self._began
            if not self._elsewhere() and (not under_way or waited_s > self._grace_s):
                weights = manager.lender.weights(self._unit.ref)
                if weights is not None:
                    return manager.compute_locally(record, replace(self._unit, held=weights), self._rows, under_way)
                manager.lender.ask(self._unit.ref)
                self._tell()
            if waited_s > manager.config.progress_limit_s:
                raise UnitUnavailableError(
                    _sentence(self._unit.ref, manager.lender.trouble, manager.config.progress_limit_s)
                )
            manager.look_around()
            manager.pump(TURN_S)
            manager.check_wanted()

    @property
    def _under_way(self) -> bool:
        record = self._record
        if record.state not in (ChunkState.SENT, ChunkState.VERIFIED) or record.ticket is None:
            return False
        return not record.ticket.failed

    def _elsewhere(self) -> bool:
        """Send the chunk through a lane that was not tried."""
        now = self._manager.now()
        if now - self._tried_since > AGAIN_S and not self._under_way:
            self._tried.clear()
            self._tried_since = now
        own = None if self._record.lane is None else self._manager.lanes[self._record.lane]
        lane = self._manager.roster.elsewhere(own, self._record.chunk.unit, self._tried)
        if lane is None:
            return False
        self._tried.add(lane.index)
        return self._manager.move_to(lane, self._record, self._unit, self._rows, self._floats)

    def _tell(self) -> None:
        """Say what is waited for; how often a user hears of it is the session's choice."""
        trouble = self._manager.lender.trouble
        why = f" ({trouble})" if trouble else ""
        self._manager.on_trouble(
            f"{_where(self._unit.ref)}: no peer that is there computes it; its weights are asked for{why}"
        )


def _where(ref: UnitRef) -> str:
    return "the head" if ref.layer is None else f"layer {ref.layer} ({ref.kind})"


def _sentence(ref: UnitRef, trouble: str | None, seconds: float) -> str:
    why = f" ({trouble})" if trouble else ""
    return (
        f"no peer that is there computes {_where(ref)}, and nobody gave its weights within {seconds:.0f} s{why}: "
        "start a node that holds the model"
    )
