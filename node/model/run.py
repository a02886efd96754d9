"""The interface between the decoder and the places that compute its layers: a run of consecutive layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from node.kernels.interface import Int64s
from node.model.cache import KVCache
from node.model.rotation import Rotation
from protocol.linear.field import Floats


class Rows(Struct, frozen=True):
    """The rows of one part in the pass, and their positions in its sequence."""

    start: int
    stop: int
    positions: Int64s
    cache: KVCache


class LayerRun(Protocol):
    """Consecutive layers that are computed in one place: on this device, unit by unit, or on another device."""

    @property
    def layers(self) -> range:
        """Their indices."""

    def forward(self, hidden: Floats, rotations: Sequence[Rotation], blocks: Sequence[Rows]) -> Floats:
        """Hidden states f32[T, D] before the first layer -> those after the last; `hidden` may be overwritten.

        New keys and values are written into the caches of `blocks`, whose owner commits them.

        Args:
            rotations: of the rows, one for each of the configuration's `ropes`.
            blocks: the rows of each sequence, in order.
        """
        ...
