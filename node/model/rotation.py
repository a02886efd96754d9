"""Cosine and sine of the angles by which queries and keys are rotated.

They are computed in float64 and rounded once, in whole blocks of positions, so that a position's entry does not
depend on the other requested positions.
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
        angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)
        factor = np.float32(rope.attention_factor)
        return Rotation(np.cos(angles).astype(np.float32) * factor, np.sin(angles).astype(np.float32) * factor)

    @staticmethod
    def joined(parts: Sequence[Rotation]) -> Rotation:
        """The rows of several rotations, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Rotation(np.concatenate([part.cos for part in parts]), np.concatenate([part.sin for part in parts]))


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
