"""Cosine and sine of the angles by which queries and keys are rotated.

They are computed in float64 and rounded once. Only additions, multiplications and roundings are used, which every
processor does alike: a device that computes a span must get the same bits as any other, and the libraries' own
functions differ in the last bit between processors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from node.model.config import RopeConfig
from node.model.rope import inverse_frequencies
from protocol.linear.field import Floats

BLOCK_POSITIONS = 512
"""A table grows by this many positions at a time."""
QUARTER = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
"""pi / 2 in three parts. The first two have 33 bits each, so that their products with a number of quarter turns below
2^20 are exact (Cody and Waite, 1980; the parts are those of fdlibm's e_rem_pio2.c)."""
SIN = (
    *(-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04),
    *(2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10),
)
COS = (
    *(4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05),
    *(-2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11),
)
"""Coefficients of the minimax polynomials on [-pi / 4, pi / 4] (fdlibm, k_sin.c and k_cos.c)."""


class Rotation(Struct, frozen=True):
    """The rotation of the rows of a pass."""

    cos: Floats
    """[T, rotated / 2]"""
    sin: Floats
    """[T, rotated / 2]"""

    @staticmethod
    def at(rope: RopeConfig, head_dim: int, positions: npt.NDArray[np.int64], stretched: bool = False) -> Rotation:
        """The rotation of each position; `stretched` by the long factors of longrope."""
        frequencies = inverse_frequencies(rope, head_dim, stretched)
        cos, sin = _cos_sin((positions.astype(np.float32)[:, None] * frequencies).astype(np.float64))
        factor = np.float32(rope.attention_factor)
        return Rotation(cos.astype(np.float32) * factor, sin.astype(np.float32) * factor)

    @staticmethod
    def joined(parts: Sequence[Rotation]) -> Rotation:
        """The rows of several rotations, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Rotation(np.concatenate([part.cos for part in parts]), np.concatenate([part.sin for part in parts]))


def _cos_sin(angles: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine and sine of angles below 2^20 quarter turns, to less than 2^-50."""
    quarters = np.rint(angles * (1.0 / QUARTER[0]))
    rest = angles
    for part in QUARTER:
        rest = rest - quarters * part
    square = rest * rest
    sine = rest + rest * square * _polynomial(SIN, square)
    cosine = 1.0 - 0.5 * square + square * square * _polynomial(COS, square)
    turn = quarters.astype(np.int64) & 3
    is_odd, negates_cos, negates_sin = (turn & 1) == 1, (turn == 1) | (turn == 2), turn >= 2
    cos, sin = np.where(is_odd, sine, cosine), np.where(is_odd, cosine, sine)
    return np.where(negates_cos, -cos, cos), np.where(negates_sin, -sin, sin)


def _polynomial(coefficients: Sequence[float], value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = np.full_like(value, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * value + coefficient
    return total


class Rotations:
    """The rotations of a model, for any rows; computed as far as needed."""

    def __init__(self, ropes: Sequence[RopeConfig], head_dim: int) -> None:
        self._ropes, self._head_dim = ropes, head_dim
        self._tables: dict[tuple[int, bool], RotationTable] = {}

    def of(self, ranges: Sequence[tuple[int, int, bool]]) -> list[Rotation]:
        """For each rope, the rotation of positions `[start, stop)` of each range, one after the other; the third
        value says whether the long factors of longrope are used."""
        return [
            Rotation.joined([self._table(index, stretched).rows(start, stop) for start, stop, stretched in ranges])
            for index in range(len(self._ropes))
        ]

    def _table(self, index: int, stretched: bool) -> RotationTable:
        key = (index, stretched)
        if key not in self._tables:
            self._tables[key] = RotationTable(self._ropes[index], self._head_dim, stretched)
        return self._tables[key]


class RotationTable:
    """One rotation for all positions from 0 on, computed as far as needed."""

    def __init__(self, rope: RopeConfig, head_dim: int, stretched: bool) -> None:
        self._rope, self._head_dim, self._stretched = rope, head_dim, stretched
        empty = np.empty((0, rope.rotated(head_dim) // 2), dtype=np.float32)
        self._known = Rotation(empty, empty)

    def rows(self, start: int, stop: int) -> Rotation:
        """The rotation of a range of positions."""
        while (known := len(self._known.cos)) < stop:
            positions = np.arange(known, known + BLOCK_POSITIONS, dtype=np.int64)
            block = Rotation.at(self._rope, self._head_dim, positions, self._stretched)
            self._known = Rotation.joined([self._known, block])
        return Rotation(self._known.cos[start:stop], self._known.sin[start:stop])
