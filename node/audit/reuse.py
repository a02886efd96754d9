"""All pairs of rows: does any pair differ, or add up, to something small?

Two rows under one pad differ by the difference of two rows of activations, which is at most 4094 in every element. A
share and its own pad add up to the row itself. No statistic of single rows can see either. Pairs are found by
sorting one element of all rows, and then compared in the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from node.audit.views import View
from node.kernels.interface import ACTIVATION_LIMIT
from protocol.linear.field import Elements, P

NEAR = 2 * ACTIVATION_LIMIT
COMPARED = 64
"""First elements of a row that are compared. The same stream gives the same first elements whatever the length."""
SORTED = (0, 21, 42, 63)
"""Elements by which pairs are found; a pair that is near in none of them is not found."""
NEAR_ELEMENTS = 4
"""So many near elements of 64 happen by chance once in 10^16 pairs."""
MOST_BEYOND = 1 << 15
"""So many pairs more than twice what is expected of uniform elements are a finding already, and are not compared."""
AT_A_TIME = 1 << 13
"""Pairs in memory."""

Indices = NDArray[np.int64]


class NearPairs(Struct, frozen=True):
    """What was found among all pairs."""

    compared: int
    """Pairs of rows."""
    near: int
    """Pairs that differ by little."""
    opposite: int
    """Pairs that add up to little."""
    overflowed: bool = False
    """More pairs were near in one element than were compared in the others."""

    @property
    def found(self) -> bool:
        return bool(self.near or self.opposite or self.overflowed)

    def as_json(self) -> dict[str, object]:
        return {"pairs": self.compared, "near": self.near, "opposite": self.opposite, "overflowed": self.overflowed}


def near_pairs(view: View) -> NearPairs:
    """Compare all rows of a view with each other, whatever their units."""
    return pairs_of(first_elements(view))


def pairs_of(heads: Elements) -> NearPairs:
    """The same for rows of which only the first elements are given, `[n, 64]`."""
    count = len(heads)
    near, many = _pairs(heads, heads, same=True)
    opposite, too_many = _pairs(heads, negated(heads), same=True)
    return NearPairs(count * (count - 1) // 2, len(near), len(opposite), many or too_many)


def first_elements(view: View) -> Elements:
    """The first elements of all rows: [n, 64], filled up with elements that are near to none."""
    parts = [_head(rows.elements) for rows in view.rows]
    return np.concatenate(parts) if parts else np.zeros((0, COMPARED), dtype=np.uint32)


def negated(rows: Elements) -> Elements:
    """-b mod p."""
    return np.where(rows == 0, rows, np.uint32(P) - rows).astype(np.uint32)


def near_between(first: Elements, second: Elements) -> Indices:
    """Pairs (index in the first, index in the second) of rows that are near: [pairs, 2]."""
    pairs, _many = _pairs(first, second, same=False)
    return pairs


def _head(elements: Elements) -> Elements:
    if elements.shape[1] >= COMPARED:
        return elements[:, :COMPARED]
    return np.tile(elements, (1, -(-COMPARED // elements.shape[1])))[:, :COMPARED]


def _pairs(first: Elements, second: Elements, same: bool) -> tuple[Indices, bool]:
    """Near pairs, each once, and whether there were too many to compare.

    Args:
        same: both are rows of one list, so that (i, j) is (j, i), and i is not compared with itself.
    """
    found: set[tuple[int, int]] = set()
    expected = len(first) * len(second) * (2 * NEAR + 1) / P / (2 if same else 1)
    for column in SORTED:
        compared = 0
        for one, other in _candidates(first[:, column], second[:, column]):
            if same:
                keep = one < other
                one, other = one[keep], other[keep]
            compared += len(one)
            if compared > 2 * expected + MOST_BEYOND:
                return _as_array(set()), True
            distance = (first[one].astype(np.int64) - second[other]) % P
            near = ((distance <= NEAR) | (distance >= P - NEAR)).sum(axis=1) >= NEAR_ELEMENTS
            found.update(zip(one[near].tolist(), other[near].tolist(), strict=True))
    return _as_array(found), False


def _as_array(pairs: set[tuple[int, int]]) -> Indices:
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _candidates(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> Iterator[tuple[Indices, Indices]]:
    """Index pairs of values that are near mod p, some at a time."""
    order = np.argsort(second, kind="stable")
    ordered = second[order].astype(np.int64)
    around = np.concatenate([ordered - P, ordered, ordered + P])  # values near 0 are near to those near p
    values = first.astype(np.int64)
    starts = np.searchsorted(around, values - NEAR, "left")
    counts = np.searchsorted(around, values + NEAR, "right") - starts
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for done in range(0, total, AT_A_TIME):
        pair = np.arange(done, min(done + AT_A_TIME, total))
        owner = np.searchsorted(ends, pair, "right")
        offset = pair - (ends - counts)[owner]
        yield owner, order[(starts[owner] + offset) % len(ordered)]
