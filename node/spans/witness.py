"""Another device of the same owner, which computes layers again that this device does not hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from node.execution.ledger import ChunkCounts
from node.model.cache import KVCache
from node.model.config import ModelConfig
from node.model.span import SpanPart
from node.planning.spans import STEP_ROWS
from node.spans.crew import Crew
from node.spans.device import DeviceError, SpanDevice
from protocol.linear.field import Floats
from protocol.spans.messages import max_rows_per_step

CONNECT_TIMEOUT_S = 3.0
TURN_S = 0.1
"""The longest wait before it looks whether the rows are still wanted."""


class Witness:
    """A connection of its own to a device; only the thread that compares uses it.

    Args:
        check: raises an exception when rows are not wanted any more.
    """

    def __init__(self, device: SpanDevice, config: ModelConfig, check: Callable[[], None]) -> None:
        self.device = device
        self.config = config
        self._check = check
        self.fails = False
        """Whether it could not be reached, or has failed: it is asked no more."""
        self._crew = Crew(None, ChunkCounts())
        self._crew.join(device)
        self._most_rows = min(STEP_ROWS, max_rows_per_step(config.hidden_size))

    def forward(self, layers: range, hidden: Floats, part: SpanPart) -> Floats:
        """Rows f32[T, D] of one sequence before the layers -> those after them.

        Raises:
            DeviceError: the device cannot go on.
            CacheGoneError: it has lost the cache.
        """
        try:
            self._look()
            rows = [
                self._step(layers, hidden[first : first + self._most_rows], part.cache, part.start + first)
                for first in range(0, len(hidden), self._most_rows)
            ]
        except DeviceError:
            self.fails = True
            raise
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _look(self) -> None:
        """Read what has come since the last rows, and wait for the connection where it does not stand."""
        for _unwanted in self._crew.hear(0):
            pass
        if self.device.is_noisy:
            raise DeviceError(self.device, "it sent too much that nobody asked for")
        if not self.device.peer.channel.wait_connected(CONNECT_TIMEOUT_S):
            raise DeviceError(self.device, "it cannot be reached")
        self.device.close_ended()

    def _step(self, layers: range, hidden: Floats, cache: KVCache, start: int) -> Floats:
        part = SpanPart(cache, start, start + len(hidden))
        self.device.send_step(layers, (part,), hidden)
        try:
            while True:
                self._check()
                for device, flight, result in self._crew.hear(TURN_S):
                    if not result.answers(flight.binding, self.config.hidden_size):
                        raise DeviceError(device, "a result of it is not the answer to its request")
                    device.computed(flight)
                    return np.array(result.rows)
                self._crew.check_alive()
        finally:
            self._crew.cancel()


class WitnessLayers:
    """Layers that a witness computes, as `SpanLayers` are computed here."""

    def __init__(self, witness: Witness, layers: range) -> None:
        self.layers = layers
        self._witness = witness

    def new_cache(self, capacity: int, reach: int) -> KVCache:
        """An empty cache; the keys and values are at the device."""
        return KVCache(self._witness.config, capacity, reach, ())

    def forward(self, hidden: Floats, parts: Sequence[SpanPart]) -> Floats:
        """Hidden states f32[T, D] before the first layer -> those after the last; of one sequence.

        Raises:
            DeviceError: the device cannot go on.
            CacheGoneError: it has lost the cache.
        """
        (part,) = parts
        part.prepare()
        rows = self._witness.forward(self.layers, hidden, part)
        part.cache.commit([0] * len(rows))
        return rows
