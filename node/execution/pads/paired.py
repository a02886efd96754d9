"""Pads of a device of the same owner, for `strict`: it makes the products while it is available, else we do.

Both belong to the user, so a share may go to any lane; the paired device itself gets no shares in such a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.execution.pads.batch import PadTicket
from node.execution.pads.guard import GuardPads
from node.execution.pads.own import OwnPads
from node.execution.peer import SessionPeer
from node.model.unit import Unit, UnitRef


class PairedPads:
    """One source of pads for several lanes of a session.

    Args:
        own: None for a device that lacks the weights to make pads; it gets pads only from the paired device.
    """

    binds_rows = False

    def __init__(
        self, theirs: GuardPads, own: OwnPads | None, still_paired: Callable[[], bool] = lambda: True
    ) -> None:
        self._theirs = theirs
        self._own = own
        self._still_paired = still_paired
        self._lacking: set[UnitRef] = set()

    @property
    def maker(self) -> SessionPeer:
        return self._theirs.guard

    @property
    def rows_asked(self) -> int:
        """Rows of pads that the paired device was asked for."""
        return self._theirs.rows_asked

    @property
    def usable(self) -> bool:
        return self._own is not None or self._theirs.usable

    @property
    def takes_rows(self) -> bool:
        return self._own is not None or self._is_there()

    def _is_there(self) -> bool:
        return self._theirs.takes_rows and self._still_paired()

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> PadTicket:
        if self._own is None:
            return self._theirs.take(unit, num_rows, num_sent)
        if self._is_there() and unit.ref not in self._lacking:
            ticket = self._theirs.take(unit, num_rows, num_sent)
            if not ticket.failed:
                return ticket
        return self._own.take(unit, num_rows, num_sent)

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        if self._is_there():
            self._theirs.prepare([unit for unit in units if unit.ref not in self._lacking], num_rows)

    def forget(self) -> None:
        for pads in (self._theirs, self._own):
            if pads is not None:
                pads.forget()

    def can_without(self, ref: UnitRef) -> bool:
        """The paired device does not hold this unit: returns whether this device can make the pads."""
        self._lacking.add(ref)
        return self._own is not None
