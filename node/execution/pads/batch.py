"""Pads of consecutive rows from one seed, and those of one chunk. Every row of a batch is used only once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import numpy as np
from msgspec import Struct, field

from node.model.unit import UnitRef
from protocol.discreet import Discreet
from protocol.linear.field import Elements
from protocol.linear.shares import pad_rows

next_number = itertools.count(1).__next__
"""Gives numbers to chunks and batches of pads; they are unique in this process."""


class PadBatch(Discreet, Struct):
    """Pads of consecutive rows from one seed."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("seed", "products", "make", "_pads")
    unit: UnitRef
    seed: bytes
    num_rows: int
    products: Elements | None = None
    """`[rows, N]`, verified `W r`; None until they have come."""
    failed: bool = False
    """The products will never come."""
    next_row: int = 0
    number: int = field(default_factory=next_number)
    make: Callable[[PadBatch], Elements] | None = None
    """Computes its products, where this device does and has not yet."""
    _pads: Elements | None = None

    @property
    def pads(self) -> Elements:
        """`[rows, K]`, drawn when they are first needed."""
        if self._pads is None:
            self._pads = pad_rows(self.seed, 0, self.num_rows, self.unit.num_inputs)
        return self._pads

    def complete(self) -> None:
        """Compute the products, if it is this device that owes them."""
        if self.make is not None:
            self.products, self.make = self.make(self), None

    @property
    def left(self) -> int:
        return self.num_rows - self.next_row

    def take(self, most: int) -> Span:
        """Take the next rows, at most `most`; they count as used from now on."""
        start = self.next_row
        self.next_row += min(most, self.left)
        return self, start, self.next_row


Span = tuple[PadBatch, int, int]
"""Rows `[start, end)` of a batch."""


class PadTicket(Discreet, Struct):
    """Pads of the rows of one chunk, used once."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("pads", "batches")
    pads: Elements
    """`[num_sent, K]`: the rows' pads, then the negated shares of the zero rows that fill the bucket."""
    num_rows: int
    batches: Sequence[Span]

    @property
    def failed(self) -> bool:
        return any(batch.failed for batch, _start, _end in self.batches)

    @property
    def batch_rows(self) -> int:
        """Number of rows in the request for its products."""
        return self.batches[0][0].num_rows

    def complete(self) -> None:
        for batch, _start, _end in self.batches:
            batch.complete()

    def products(self) -> Elements | None:
        """`[num_rows, N]`, or None while some are missing."""
        parts = []
        for batch, start, end in self.batches:
            if batch.products is None:
                return None
            parts.append(batch.products[start:end])
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[: self.num_rows]


class Ticket(Protocol):
    """What a chunk needs from its pads."""

    @property
    def pads(self) -> Elements:
        """`[bucket, K]`"""

    @property
    def failed(self) -> bool:
        """Whether their products will never come."""

    def complete(self) -> None:
        """Compute the products that this device makes itself; called once the share is on its way."""

    def products(self) -> Elements | None:
        """`[num_rows, N]`, or None while some are missing."""

    @property
    def batches(self) -> Sequence[Span]:
        """The rows of the batches from which they were taken."""

    @property
    def batch_rows(self) -> int:
        """Number of rows in the request for its products."""


def joined(pads: Sequence[Elements]) -> Elements:
    """The rows of several batches as one array."""
    return pads[0] if len(pads) == 1 else np.concatenate(pads)
