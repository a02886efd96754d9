"""Changes of field elements: from one honest product `[T, N]` to many forged ones `[count, T, N]`, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from protocol.linear.field import Elements, P

Random = np.random.Generator
Change = Callable[[Random, Elements, int], Elements]
"""Arguments: where lots come from, the honest product, how many forged ones; all are canonical."""


def copies(honest: Elements, count: int) -> Elements:
    return np.repeat(honest[None], count, axis=0)


def add_at(forged: Elements, rows: NDArray[np.int64], columns: NDArray[np.int64], amounts: NDArray[np.int64]) -> None:
    """Add to one element of each forged product, mod p."""
    which = np.arange(len(forged))
    forged[which, rows, columns] = (forged[which, rows, columns] + amounts) % P


def somewhere(random: Random, honest: Elements, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A row and a column for each forged product."""
    return random.integers(0, len(honest), count), random.integers(0, honest.shape[1], count)


def any_amounts(random: Random, count: int) -> NDArray[np.int64]:
    return random.integers(1, P, count)


def one_more(amount: int | None, row: int | None = None, column: int | None = None) -> Change:
    """One element changed, by this amount or any other, at this place or anywhere."""

    def change(random: Random, honest: Elements, count: int) -> Elements:
        forged = copies(honest, count)
        rows, columns = somewhere(random, honest, count)
        rows = rows if row is None else np.full_like(rows, row % len(honest))
        columns = columns if column is None else np.full_like(columns, column % honest.shape[1])
        add_at(forged, rows, columns, any_amounts(random, count) if amount is None else np.full(count, amount))
        return forged

    return change


def one_bit(random: Random, honest: Elements, count: int) -> Elements:
    """One bit of one element turned; where that leaves the field, the lowest bit."""
    forged = copies(honest, count)
    rows, columns = somewhere(random, honest, count)
    which = np.arange(count)
    turned = forged[which, rows, columns] ^ (np.uint32(1) << random.integers(0, 31, count).astype(np.uint32))
    forged[which, rows, columns] = np.where(turned < P, turned, forged[which, rows, columns] ^ np.uint32(1))
    return forged


def cancelling(by_row: bool) -> Change:
    """Two errors whose sum is zero: in one row, or in one column of two rows."""

    def change(random: Random, honest: Elements, count: int) -> Elements:
        forged = copies(honest, count)
        rows, columns = somewhere(random, honest, count)
        amounts = any_amounts(random, count)
        add_at(forged, rows, columns, amounts)
        others = (columns + random.integers(1, honest.shape[1], count)) % honest.shape[1]
        if by_row:
            add_at(forged, rows, others, -amounts)
        else:
            add_at(forged, (rows + random.integers(1, len(honest), count)) % len(honest), columns, -amounts)
        return forged

    return change


def many_that_cancel(random: Random, honest: Elements, count: int) -> Elements:
    """Errors in every element of a row that sum to zero."""
    forged = copies(honest, count).astype(np.int64)
    errors = random.integers(0, P, (count, honest.shape[1]))
    errors[:, -1] = -errors[:, :-1].sum(axis=1) % P
    rows = random.integers(0, len(honest), count)
    forged[np.arange(count), rows] = (forged[np.arange(count), rows] + errors) % P
    return forged.astype(np.uint32)


def row_becomes(make: Callable[[Random, Elements, int], Elements]) -> Change:
    """One row becomes something else: `make` gives `[count, N]` from the honest row."""

    def change(random: Random, honest: Elements, count: int) -> Elements:
        forged = copies(honest, count)
        row = int(random.integers(0, len(honest)))
        forged[:, row] = make(random, honest[row], count)
        return forged

    return change


def noise_row(random: Random, row: Elements, count: int) -> Elements:
    return random.integers(0, P, (count, len(row)), dtype=np.uint32)


def zero_row(random: Random, row: Elements, count: int) -> Elements:
    return np.zeros((count, len(row)), np.uint32)


def turned_row(random: Random, row: Elements, count: int) -> Elements:
    """The row's elements moved by some places."""
    steps = random.integers(1, len(row), count)
    turned: Elements = row[(np.arange(len(row)) + steps[:, None]) % len(row)]
    return turned


def times(factor: int | None) -> Callable[[Random, Elements, int], Elements]:
    """The row times a number mod p, or times any number."""

    def make(random: Random, row: Elements, count: int) -> Elements:
        factors = np.full(count, factor) if factor is not None else random.integers(2, P - 1, count)
        return (row.astype(np.uint64) * factors.astype(np.uint64)[:, None] % np.uint64(P)).astype(np.uint32)

    return make


def noise(random: Random, honest: Elements, count: int) -> Elements:
    return random.integers(0, P, (count, *honest.shape), dtype=np.uint32)


def all_zero(random: Random, honest: Elements, count: int) -> Elements:
    return np.zeros((count, *honest.shape), np.uint32)


def columns_swapped(random: Random, honest: Elements, count: int) -> Elements:
    """Two outputs exchanged in every row."""
    forged = copies(honest, count)
    for each in forged:
        a, b = random.choice(honest.shape[1], 2, replace=False)
        each[:, [a, b]] = each[:, [b, a]]
    return forged


def rows_swapped(random: Random, honest: Elements, count: int) -> Elements:
    forged = copies(honest, count)
    for each in forged:
        a, b = random.choice(len(honest), 2, replace=False)
        each[[a, b]] = each[[b, a]]
    return forged


def row_twice(random: Random, honest: Elements, count: int) -> Elements:
    """A row in the place of another."""
    forged = copies(honest, count)
    for each in forged:
        a, b = random.choice(len(honest), 2, replace=False)
        each[a] = each[b]
    return forged


def unseen_by(vectors: Elements) -> Change:
    """An error that these vectors `[m, N]` do not see: whoever knew them could make it. It spans m + 1 elements of a
    row, and its parts are the minors of the vectors there."""

    def change(random: Random, honest: Elements, count: int) -> Elements:
        forged = copies(honest, count)
        size = len(vectors) + 1
        for each in forged:
            row, columns = int(random.integers(0, len(honest))), random.choice(honest.shape[1], size, replace=False)
            within = [[int(vector[column]) for column in columns] for vector in vectors]
            factor = int(random.integers(1, P))
            for place, column in enumerate(columns):
                minor = determinant([[*line[:place], *line[place + 1 :]] for line in within])
                each[row, column] = (int(each[row, column]) + factor * (-1) ** place * minor) % P
        return forged

    return change


def determinant(matrix: Sequence[Sequence[int]]) -> int:
    """Of a small square matrix of whole numbers."""
    if not matrix:
        return 1
    return sum(
        (-1) ** place * first * determinant([[*line[:place], *line[place + 1 :]] for line in matrix[1:]])
        for place, first in enumerate(matrix[0])
    )
