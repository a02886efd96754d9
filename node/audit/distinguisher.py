"""Which of two texts was it? The attacker knows both, and the weights.

`likelihood` compares every row with the rows that it would be in either text. `repeated` has seen both texts before,
through the same peers, and compares every row with those: it finds pads that depend on the text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from node.audit.inversion import directions
from node.audit.statistics import Auc, Numbers, auc
from node.audit.truth import Place, SentRows
from node.audit.views import View
from protocol.linear.field import Floats

MAX_SEEN = 512
"""Rows of one unit that are remembered."""


class Pair(Struct, frozen=True):
    """Two texts, and the numbers under which each was asked: first to learn, then to be told apart."""

    first: tuple[int, int]
    second: tuple[int, int]


def likelihood(view: View, pair: Pair, sent: SentRows) -> Auc | None:
    """Scores of rows of the first text against those of the second; None if there are too few."""
    scores: tuple[list[float], list[float]] = ([], [])
    for unit in view.units():
        rows = view.of_unit(unit)
        if rows is None:
            continue
        # What the first tokens of either text would give; where both give one row, nothing can be told.
        either = [sent.texts[texts[0]][unit] for texts in (pair.first, pair.second)]
        length = min(map(len, either))
        one, other = (part[:length] for part in either)
        differ, between = (one != other).any(axis=1), directions(one) - directions(other)
        seen = directions(rows.centred)
        for side, texts in enumerate((pair.first, pair.second)):
            chosen, positions = _placed(rows.places, texts, differ)
            scores[side].extend(np.einsum("nk,nk->n", seen[chosen], between[positions]).tolist())
    return _auc(scores)


def repeated(view: View, pair: Pair) -> Auc | None:
    """The same by rows that were seen when the texts were asked for the first time."""
    scores: tuple[list[float], list[float]] = ([], [])
    for unit in view.units():
        rows = view.of_unit(unit)
        if rows is None:
            continue
        seen, places = directions(rows.centred), rows.places
        known = [_rows_of(seen, places, texts[0])[:MAX_SEEN] for texts in (pair.first, pair.second)]
        if not all(map(len, known)):
            continue
        for side, texts in enumerate((pair.first, pair.second)):
            fresh = _rows_of(seen, places, texts[1])
            if len(fresh):
                score = (fresh @ known[0].T).max(axis=1) - (fresh @ known[1].T).max(axis=1)
                scores[side].extend(score[score != 0].tolist())  # a row that both texts have tells nothing
    return _auc(scores)


def _placed(
    places: Sequence[Place | None], texts: Collection[int], wanted: NDArray[np.bool_]
) -> tuple[list[int], list[int]]:
    """Which rows belong to these texts at wanted positions, and at which."""
    found = [
        (index, place.position)
        for index, place in enumerate(places)
        if place is not None and place.text in texts and place.position < len(wanted) and wanted[place.position]
    ]
    return [index for index, _position in found], [position for _index, position in found]


def _rows_of(seen: Floats, places: Sequence[Place | None], text: int) -> Floats:
    chosen = [index for index, place in enumerate(places) if place is not None and place.text == text]
    return seen[chosen]


def _auc(scores: tuple[list[float], list[float]]) -> Auc | None:
    first, second = (_numbers(values) for values in scores)
    return auc(first, second) if len(first) and len(second) else None


def _numbers(values: Sequence[float]) -> Numbers:
    return np.array(values, dtype=np.float64)
