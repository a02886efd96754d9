"""What somebody sees: rows of field elements, each of a unit, with the place in a text to which the audit knows it
belongs.

The attacks get the places as well. A real peer would have to guess them, so what fails here fails there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from msgspec import Struct

from node.audit.tap import Tapped
from node.audit.truth import Place, SentRows
from node.kernels.portable import PortableKernels
from node.model.unit import UnitRef
from protocol.discreet import Discreet
from protocol.linear.field import Elements, P, Sums, elements_of_integers
from protocol.linear.shares import pad_rows

KERNELS = PortableKernels()


class Rows(Discreet, Struct, frozen=True):
    """Rows of one unit, in the order in which they came."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("elements",)
    unit: UnitRef
    elements: Elements
    """[n, K]"""
    places: Sequence[Place | None]
    """Of each row, the place in a text; None for a zero row, for a guess that was wrong, and for a pad that hides no
    row."""

    @property
    def centred(self) -> Sums:
        """The elements as integers in (-p / 2, p / 2)."""
        return KERNELS.centre(self.elements)

    def known(self) -> Rows:
        """The rows whose places are known."""
        chosen = [index for index, place in enumerate(self.places) if place is not None]
        return Rows(self.unit, self.elements[chosen], [self.places[index] for index in chosen])


class View(Struct, frozen=True):
    """What one peer, or some peers together, have seen."""

    name: str
    rows: Sequence[Rows]

    @property
    def num_rows(self) -> int:
        return sum(len(rows.elements) for rows in self.rows)

    def of_unit(self, unit: UnitRef) -> Rows | None:
        """All rows of a unit whose places are known."""
        chosen = [rows.known() for rows in self.rows if rows.unit == unit]
        chosen = [rows for rows in chosen if rows.places]
        if not chosen:
            return None
        elements = np.concatenate([rows.elements for rows in chosen])
        return Rows(unit, elements, [place for rows in chosen for place in rows.places])

    def units(self) -> list[UnitRef]:
        """The units of its rows whose places are known."""
        return list(dict.fromkeys(rows.unit for rows in self.rows if any(rows.places)))


def shares_of(tapped: Tapped, units: Mapping[bytes, UnitRef], sent: SentRows) -> list[Rows]:
    """The shares that a peer got."""
    return [
        Rows(units[share.binding.unit], share.rows, sent.places_of_share(share.binding.unit, share.rows))
        for share in tapped.shares
    ]


def pads_of(tapped: Tapped, units: Mapping[bytes, UnitRef], sent: SentRows) -> list[Rows]:
    """The pads that a peer can make from its seeds."""
    made = []
    for message in tapped.seeds:
        unit, binding = units[message.binding.unit], message.binding
        pads = pad_rows(message.seed, binding.row_start, binding.row_end, unit.num_inputs)
        made.append(Rows(unit, pads, sent.places_of_pads(binding.unit, pads)))
    return made


def joined(name: str, views: Iterable[View]) -> View:
    """What some of them see together."""
    return View(name, [rows for view in views for rows in view.rows])


def noise_like(view: View, units: Collection[UnitRef], generator: np.random.Generator) -> View:
    """Fresh uniform noise in place of every row of some units: what an attack reaches without seeing anything."""
    noise = [
        Rows(rows.unit, generator.integers(0, P, rows.elements.shape, dtype=np.uint32), rows.places)
        for rows in view.rows
        if rows.unit in units
    ]
    return View("noise", noise)


def plain_like(view: View, sent: SentRows) -> View:
    """The true rows in place of those whose places are known: the control of every attack."""
    plain = []
    for rows in view.rows:
        known = rows.known()
        if known.places:
            values = np.stack([sent.true_row(rows.unit, place) for place in known.places if place is not None])
            plain.append(Rows(rows.unit, elements_of_integers(values), known.places))
    return View("plain rows", plain)
