"""What peers recover who put their pads and shares together: a share and its own pad add up to the row."""

from __future__ import annotations

import numpy as np

from node.audit.reuse import first_elements, near_between, negated
from node.audit.views import KERNELS, Rows, View
from node.model.unit import UnitRef
from protocol.linear.field import elements_of_integers


def recovered(name: str, pads: View, shares: View) -> View:
    """The rows whose pad is among these pads. The peers need not know which pad belongs to which share: they try all
    pairs, and the right ones are small in every element."""
    found: list[Rows] = []
    for unit in dict.fromkeys(rows.unit for rows in shares.rows):
        found.extend(_recovered_of(unit, pads, shares))
    return View(name, found)


def _recovered_of(unit: UnitRef, pads: View, shares: View) -> list[Rows]:
    own, theirs = _of_unit(unit, pads), _of_unit(unit, shares)
    if own is None or theirs is None:
        return []
    pairs = near_between(first_elements(View("", [own])), negated(first_elements(View("", [theirs]))))
    if not len(pairs):
        return []
    _shares, once = np.unique(pairs[:, 1], return_index=True)
    pad_indices, share_indices = pairs[once].T
    sums = KERNELS.merge(theirs.elements[share_indices], own.elements[pad_indices])
    return [Rows(unit, elements_of_integers(sums), [theirs.places[index] for index in share_indices])]


def _of_unit(unit: UnitRef, view: View) -> Rows | None:
    chosen = [rows for rows in view.rows if rows.unit == unit]
    if not chosen:
        return None
    elements = np.concatenate([rows.elements for rows in chosen])
    return Rows(unit, elements, [place for rows in chosen for place in rows.places])
