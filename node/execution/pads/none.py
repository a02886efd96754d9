"""No pads at all: plain rows go to devices that may read them (`--privacy trusted`).

A lane of this kind is usable only while the user's consent is valid; it is checked before every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from msgspec import Struct

from node.execution.pads.batch import PadBatch
from node.model.unit import Unit, UnitRef
from protocol.discreet import Discreet
from protocol.linear.field import Elements


class ZeroTicket(Discreet, Struct):
    """Pads of zero: the share is the row itself, and the merged sum is what the device returned."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("pads",)
    pads: Elements
    num_rows: int
    num_outputs: int
    batches: Sequence[tuple[PadBatch, int, int]] = ()
    failed: bool = False

    @property
    def batch_rows(self) -> int:
        return len(self.pads)

    def complete(self) -> None:
        """Does nothing: zeros need no product."""

    def products(self) -> Elements:
        return np.zeros((self.num_rows, self.num_outputs), dtype=np.uint32)


class NoPads:
    """The pad source of a lane whose device may read the prompt."""

    maker = None
    binds_rows = False

    def __init__(self, allowed: Callable[[], bool]) -> None:
        self._allowed = allowed

    @property
    def usable(self) -> bool:
        return self._allowed()

    @property
    def takes_rows(self) -> bool:
        return self._allowed()

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> ZeroTicket:
        shape = (num_sent, unit.ref.num_inputs)
        return ZeroTicket(np.zeros(shape, dtype=np.uint32), num_rows, unit.ref.num_outputs)

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        """Does nothing: there are no pads to make."""

    def forget(self) -> None:
        """Does nothing: there are no pads."""

    def can_without(self, ref: UnitRef) -> bool:
        """True: no pads are needed."""
        return True
