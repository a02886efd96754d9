"""A span: consecutive layers that are computed for caches of their own, without the rest of the model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
from msgspec import Struct

from node.kernels.interface import Kernels
from node.model.cache import KVCache
from node.model.layers import UnitLayers
from node.model.linear import LocalLinear
from node.model.parts import ModelParts
from node.model.rotation import Rotations
from node.model.run import Rows
from protocol.linear.field import Floats


class SpanPart(Struct, frozen=True):
    """Rows of one sequence: positions `[start, stop)`. What its cache holds from `start` on is forgotten first."""

    cache: KVCache
    start: int
    stop: int

    def prepare(self) -> None:
        """Give its rows room in the cache. Raises PromptError if there is none."""
        self.cache.truncate(self.start)
        self.cache.reserve(self.stop - self.start)

    def as_rows(self, first: int) -> Rows:
        """The same for layers: its rows begin with the `first` of a pass."""
        num_rows = self.stop - self.start
        return Rows(first, first + num_rows, np.arange(self.start, self.stop, dtype=np.int64), self.cache)

    @property
    def rotated(self) -> tuple[int, int, bool]:
        """What a rotation of it depends on."""
        return self.start, self.stop, self.cache.stretched


def rows_of(parts: Sequence[SpanPart]) -> list[Rows]:
    """The rows of each part in a pass, in order."""
    rows, first = [], 0
    for part in parts:
        rows.append(part.as_rows(first))
        first += part.stop - part.start
    return rows


class SpanLayers:
    """The layers of a span with this device's weights; one thread at a time.

    Raises:
        CorruptModelError: a unit's file is damaged.
    """

    def __init__(self, model: ModelParts, kernels: Kernels, layers: range) -> None:
        self.layers = layers
        self._config = model.config
        self._run = UnitLayers(model, kernels, LocalLinear(kernels), layers)
        self._rotations = Rotations(model.config.ropes, model.config.head_dim)

    def new_cache(self, capacity: int, reach: int) -> KVCache:
        """An empty cache with room for keys and values of these layers."""
        return KVCache(self._config, capacity, reach, self.layers)

    def forward(self, hidden: Floats, parts: Sequence[SpanPart]) -> Floats:
        """Hidden states f32[T, D] before the first layer -> those after the last; `hidden` may be overwritten.

        Raises:
            PromptError: a cache has no room for its rows.
            NotFiniteError: a value is not finite.
        """
        try:
            next(self.steps(hidden, parts, lambda: False))
        except StopIteration as finished:
            computed: Floats = finished.value
            return computed
        raise AssertionError("nothing lets it pause")

    def steps(
        self, hidden: Floats, parts: Sequence[SpanPart], pause: Callable[[], bool]
    ) -> Generator[None, None, Floats]:
        """The same as a generator, which pauses after a layer where `pause` says so; its value is the result. If it
        is closed early, the caches hold what they held before the first row of each part."""
        for part in parts:
            part.prepare()
        blocks, rotations = rows_of(parts), self._rotations.of([part.rotated for part in parts])
        hidden = yield from self._run.steps(hidden, rotations, blocks, pause)
        for part in parts:
            part.cache.commit([0] * (part.stop - part.start))  # which tokens they are, only their owner knows
        return hidden
