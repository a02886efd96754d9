"""Where pads come from: the one thing in which the privacy modes differ.

A pad source yields tickets: pads of so many rows now, their products `W r` now or soon. In `split` mode a guard of
group A makes the products from a seed, ahead of need; in `strict` mode this device or a paired one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from node.execution.pads.batch import PadBatch, Ticket
from node.execution.peer import SessionPeer
from node.model.unit import Unit, UnitRef


class PadSource(Protocol):
    """What a lane needs: pads, and the chance to fetch some ahead."""

    @property
    def maker(self) -> SessionPeer | None:
        """The peer that makes their products; None where this device does, or there is nothing to make."""

    @property
    def binds_rows(self) -> bool:
        """Whether a share must never leave its lane: whoever makes the pads is nobody's device."""

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> Ticket:
        """Pads for a chunk of `num_rows` that travels as `num_sent`, never handed out before or again."""

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        """A few rows are about to be sent: see that pads for them and the next are there or under way."""

    def can_without(self, ref: UnitRef) -> bool:
        """Its maker does not hold this unit after all: whether there are pads for it all the same."""

    @property
    def usable(self) -> bool:
        """Whether it yields pads for rows that are under way."""

    @property
    def takes_rows(self) -> bool:
        """Whether rows of a new pass may rely on it."""


SendPad = Callable[[SessionPeer, Unit, PadBatch], bool]
