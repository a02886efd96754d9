"""Are field elements uniform, and independent of each other and of the rows that they hide?

A pad that is used twice cannot be seen by this: that is what `reuse` looks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from node.audit.statistics import at_least_one, chi_square_p, kolmogorov_p, normal_p
from node.audit.truth import SentRows
from node.audit.views import View
from protocol.linear.field import Elements, P

BLOCK_ELEMENTS = 1 << 14
"""Elements of which one p-value is computed: 64 in each of 256 bins."""
ELEMENT_BYTES = 4
UNIFORM_VARIANCE = (P * P - 1) / 12


class Uniformity(Struct, frozen=True):
    """P-values; each should be uniform on 0..1."""

    elements: int
    chi_square: tuple[float, ...]
    """Of the four bytes, the lowest first."""
    kolmogorov: float
    """Of the p-values of all blocks of elements and all four bytes."""
    num_p_values: int
    serial: float
    """Of each element with the next one in its row, and with the one below it in the next row."""
    cross: float | None
    """Of the elements with the true rows; None if no place is known."""

    @property
    def p(self) -> float:
        """Of all of them together."""
        parts = [*self.chi_square, self.kolmogorov, self.serial, *([] if self.cross is None else [self.cross])]
        return at_least_one(parts)

    def as_json(self) -> dict[str, object]:
        return {
            "elements": self.elements,
            "chi_square": self.chi_square,
            "kolmogorov": self.kolmogorov,
            "p_values": self.num_p_values,
            "serial": self.serial,
            "cross": self.cross,
            "p": self.p,
        }


def uniformity(view: View, sent: SentRows) -> Uniformity | None:
    """The tests of all elements of a view; None if it has none."""
    if not view.rows:
        return None
    flat = np.concatenate([rows.elements.ravel() for rows in view.rows])
    blocks = [flat[start : start + BLOCK_ELEMENTS] for start in range(0, len(flat), BLOCK_ELEMENTS)]
    whole = [block for block in blocks if len(block) == BLOCK_ELEMENTS] or [flat]
    p_values = np.array([byte_p(block, byte) for block in whole for byte in range(ELEMENT_BYTES)])
    return Uniformity(
        len(flat),
        tuple(byte_p(flat, byte) for byte in range(ELEMENT_BYTES)),
        kolmogorov_p(p_values),
        len(p_values),
        _serial_p([rows.elements for rows in view.rows]),
        _cross_p(view, sent),
    )


def byte_p(elements: Elements, byte: int) -> float:
    """P-value of one byte of the elements having the counts that uniform elements have: chi-square."""
    bins = 128 if byte == ELEMENT_BYTES - 1 else 256  # the top bit is always clear
    counts = np.bincount((elements >> np.uint32(8 * byte)) & np.uint32(bins - 1), minlength=bins)
    chances = np.full(bins, 1 / bins) * ((P + 1) / P)
    chances[-1] -= 1 / P  # p itself is no element
    expected = len(elements) * chances
    return chi_square_p(float(((counts - expected) ** 2 / expected).sum()), bins - 1)


def _serial_p(parts: Sequence[Elements]) -> float:
    """P-value of neighbours having no correlation, along rows and from row to row."""
    p_values = []
    for axis in (0, 1):
        total, count = 0.0, 0
        for elements in parts:
            values = _standard(elements)
            first, second = (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])
            total += float((first * second).sum())
            count += first.size
        if count:
            p_values.append(normal_p(total / math.sqrt(count)))
    return at_least_one(p_values)


def _cross_p(view: View, sent: SentRows) -> float | None:
    """P-value of the elements having no correlation with the true rows that they hide."""
    total, square = 0.0, 0.0
    for rows in view.rows:
        known = rows.known()
        if known.places:
            true = np.stack([sent.true_row(rows.unit, place) for place in known.places if place is not None])
            values = true.astype(np.float64)
            total += float((_standard(known.elements, centred=True) * values).sum())
            square += float((values * values).sum())
    return normal_p(total / math.sqrt(square)) if square else None


def _standard(elements: Elements, centred: bool = False) -> np.ndarray:
    """Elements with mean 0 and variance 1, if they are uniform.

    Args:
        centred: as integers in (-p / 2, p / 2), as which a row's own small values are near to zero.
    """
    values = elements.astype(np.float64)
    values = np.where(values > P // 2, values - P, values) if centred else values - (P - 1) / 2
    return values / math.sqrt(UNIFORM_VARIANCE)
