"""What the peers must not learn: the true rows of each text, computed here alone, and what hid them.

The rows of a text are computed a second time, without peers. A token's row has the same bits in whatever company it
is computed, so the true row of a share, which is the share plus its pad, tells to which token it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from node.execution.chunk import ChunkRecord, ChunkState
from node.kernels.interface import Int16s, Kernels
from node.model.decoder import Decoder
from node.model.linear import LocalLinear
from node.model.unit import Unit, UnitRef
from node.store.stored import StoredModel
from protocol.discreet import Discreet
from protocol.linear.field import Elements, Floats, Sums

KEY_ELEMENTS = 8
"""A row is found again by its first elements: 248 random bits."""


class Place(Struct, frozen=True):
    """A token of a text."""

    text: int
    position: int


class EnoughError(Exception):
    """The last row that was wanted is there: the rest of the pass is not needed."""


class RowKeeper(LocalLinear):
    """Computes everything here, and keeps the rows of some units.

    Args:
        last: after the rows of this unit it ends the pass with EnoughError.
    """

    def __init__(
        self,
        kernels: Kernels,
        wanted: Callable[[UnitRef], bool] = lambda unit: True,
        last: UnitRef | None = None,
    ) -> None:
        super().__init__(kernels)
        self._wanted, self._last = wanted, last
        self.rows: dict[UnitRef, list[Int16s]] = {}

    def computed_here(self, units: Sequence[Unit]) -> Sequence[bool]:
        """None without `linear`: it keeps the rows."""
        return [unit.held is not None and not self._wanted(unit.ref) for unit in units]

    def linear(self, unit: Unit, rows: Int16s, floats: Floats | None = None) -> Sums:
        if self._wanted(unit.ref):
            self.rows.setdefault(unit.ref, []).append(rows.copy())
        if unit.ref == self._last:
            raise EnoughError
        return super().linear(unit, rows, floats)

    def take(self) -> dict[UnitRef, Int16s]:
        """The rows since the last call, `[T, K]` of each unit."""
        rows = {unit: np.concatenate(parts) for unit, parts in self.rows.items()}
        self.rows.clear()
        return rows


def true_rows_of(model: StoredModel, kernels: Kernels, token_ids: Sequence[int]) -> dict[UnitRef, Int16s]:
    """The rows of a text, `[T, K]` of each unit: row t is that of token t."""
    keeper = RowKeeper(kernels)
    decoder = Decoder.of_units(model, kernels, keeper)
    decoder.forward(list(token_ids), decoder.new_cache(len(token_ids)), all_logits=True)
    return keeper.take()


class _Sent(Discreet, Struct, frozen=True):
    HIDDEN: ClassVar[tuple[str, ...]] = ("share", "pads")
    unit: UnitRef
    text: int
    share: Elements
    pads: Elements


class SentRows(Struct):
    """The shares and pads of one session, as its client recorded them, and to which tokens they belong."""

    kernels: Kernels
    texts: dict[int, dict[UnitRef, Int16s]] = field(default_factory=dict)
    """The true rows of the texts, by their numbers."""
    _sent: list[_Sent] = field(default_factory=list)
    _shares: dict[bytes, Place | None] = field(default_factory=dict)
    _pads: dict[bytes, Place | None] = field(default_factory=dict)
    _unknown: int = 0
    """Rows that are neither zero nor those of a token."""

    def saw(self, record: ChunkRecord, text: int) -> None:
        """A chunk of a text changed its state."""
        if record.state is ChunkState.SENT and record.share is not None and record.ticket is not None:
            self._sent.append(_Sent(record.chunk.unit, text, record.share, record.ticket.pads))

    def find_places(self) -> None:
        """Find the token of every row that was recorded; call it once the texts are known."""
        tokens = {
            (text, unit): {row.tobytes(): position for position, row in enumerate(rows)}
            for text, of_units in self.texts.items()
            for unit, rows in of_units.items()
        }
        for sent in self._sent:
            true = self.kernels.merge(sent.share, sent.pads).astype(np.int16)
            positions = tokens[sent.text, sent.unit]
            for row, share, pad in zip(true, sent.share, sent.pads, strict=True):
                position = positions.get(row.tobytes())
                place = None if position is None else Place(sent.text, position)
                self._unknown += place is None and bool(row.any())
                self._shares[_key(sent.unit.sha256, share)] = place
                self._pads[_key(sent.unit.sha256, pad)] = place
        self._sent.clear()

    @property
    def num_rows(self) -> int:
        """Different rows that were sent, zero rows included."""
        return len(self._shares)

    @property
    def num_known(self) -> int:
        """Of them, those of tokens of the texts."""
        return sum(place is not None for place in self._shares.values())

    @property
    def explained(self) -> float:
        """The share of rows, zero rows apart, that are those of tokens. Rows of wrong guesses are not."""
        return self.num_known / max(self.num_known + self._unknown, 1)

    def places_of_share(self, unit: bytes, rows: Elements) -> list[Place | None]:
        return [self._shares.get(_key(unit, row)) for row in rows]

    def places_of_pads(self, unit: bytes, rows: Elements) -> list[Place | None]:
        return [self._pads.get(_key(unit, row)) for row in rows]

    def missed(self, unit: bytes, rows: Elements) -> int:
        """How many of these rows this client never sent."""
        return sum(_key(unit, row) not in self._shares for row in rows)

    def true_row(self, unit: UnitRef, place: Place) -> NDArray[np.int16]:
        row: NDArray[np.int16] = self.texts[place.text][unit][place.position]
        return row


def _key(unit: bytes, row: Elements) -> bytes:
    return unit + row[:KEY_ELEMENTS].tobytes()
