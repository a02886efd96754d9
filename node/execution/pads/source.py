"""The interface of a pad source, the only difference between the privacy modes.

A pad source gives tickets: pads for a number of rows now, and their products `W r` now or soon. In `split` mode a
guard of group A makes the products from a seed, ahead of need; in `strict` mode this device or a paired one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from node.execution.pads.batch import PadBatch, Ticket
from node.execution.peer import SessionPeer
from node.model.unit import Unit, UnitRef


class PadSource(Protocol):
    """What a lane needs: pads, and a way to request some ahead."""

    @property
    def maker(self) -> SessionPeer | None:
        """The peer that makes their products; None if this device does, or there are no pads."""

    @property
    def binds_rows(self) -> bool:
        """Whether a share must never leave its lane, because the maker of the pads is not a device of the user."""

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> Ticket:
        """Pads for a chunk of `num_rows` that is sent as `num_sent` rows; they are never given out twice."""

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        """A few rows will be sent soon: make or request pads for them and for the next ones."""

    def can_without(self, ref: UnitRef) -> bool:
        """Its maker turned out not to hold this unit; returns whether there are pads for it nevertheless."""

    def forget(self) -> None:
        """A connection of the lane broke: pads that were made ahead and not used are never used. Were this device
        copied as it ran, only one copy could go on with the connection, and the others would have these pads, too."""

    @property
    def usable(self) -> bool:
        """Whether it can give pads for rows of the current pass."""

    @property
    def takes_rows(self) -> bool:
        """Whether rows of a new pass may rely on it."""


SendPad = Callable[[SessionPeer, Unit, PadBatch], bool]
