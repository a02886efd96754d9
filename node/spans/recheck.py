"""Computes results of spans again, and compares every bit.

Which results are computed again is drawn in secret. To compute one row again, the rows before it are needed too, so
what is drawn is how far each sequence is followed through each span: a short random way always, so that a device
that errs often is found soon, and the whole way with the probability that the user chose. Checks run in a thread
that takes only time that nobody else wants. With a share of 1, every result is compared before it is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import weakref
from collections.abc import Callable
from weakref import WeakKeyDictionary, ref

import numpy as np
from msgspec import Struct

from node.kernels.interface import Kernels
from node.model.cache import KVCache
from node.model.parts import ModelParts
from node.model.span import SpanLayers, SpanPart
from node.privacy import DEFAULT_RECHECK
from node.spans.device import SpanDevice
from protocol.linear.field import Floats

log = logging.getLogger(__name__)

ALWAYS_ROWS = 32
"""The mean length of the way that is always followed."""
EACH_TIME = 1 / 16
"""The probability that a row makes what was seen so far be compared."""
AT_ONCE_ROWS = 64
"""So many rows are compared at the latest."""
MAX_WAITING_BYTES = 256 << 20
"""Most bytes of rows that wait to be compared; then the answer waits."""
LEAST_PRIORITY = 19
"""The `nice` value of the thread."""


class Lie(Struct, frozen=True):
    """A wrong result."""

    device: SpanDevice
    cache: ref[KVCache]
    """The sequence; it may have ended."""
    position: int
    """Its first wrong row."""
    layers: range


class _Seen(Struct, frozen=True):
    """Rows that went into a span, and what came."""

    device: SpanDevice | None
    """None: the rows were not returned by a device; they only bring the cache here up to date."""
    start: int
    inputs: Floats
    outputs: Floats

    @property
    def num_bytes(self) -> int:
        return self.inputs.nbytes + self.outputs.nbytes


class _Way(Struct):
    """One sequence in one span, as far as it is followed."""

    cache: ref[KVCache]
    until: int
    """It is followed up to this position."""
    own: KVCache
    """Its keys and values, computed here; only the comparing thread uses it."""
    layers: SpanLayers
    seen: list[_Seen]


class Recheck:
    """Only the session's thread calls it.

    Args:
        holds: whether the weights of some layers are here.
        kernels: makes the kernels of the comparing thread, when it is needed.
        share: the probability with which a sequence is followed to its end through a span; 1: before use.
    """

    def __init__(
        self,
        model: ModelParts,
        kernels: Callable[[], Kernels],
        holds: Callable[[range], bool],
        share: float = DEFAULT_RECHECK,
    ) -> None:
        self._model, self._make_kernels, self._holds, self._share = model, kernels, holds, share
        self._random = secrets.SystemRandom()
        self._kernels: Kernels | None = None
        self._layers: dict[range, SpanLayers] = {}
        self._ways: WeakKeyDictionary[KVCache, dict[range, _Way]] = WeakKeyDictionary()
        self._jobs: queue.SimpleQueue[tuple[_Way, list[_Seen]] | None] = queue.SimpleQueue()
        self._lies: queue.SimpleQueue[Lie] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._room = threading.Condition()
        self._thread: threading.Thread | None = None
        self.rows_seen = 0
        """Rows that devices returned, of all spans."""
        self.rows_equal = 0
        """Rows that were computed again, and were the same to the last bit."""
        self.rows_wrong = 0
        """Rows that were computed again, and were not."""

    def saw(self, device: SpanDevice, layers: range, part: SpanPart, inputs: Floats, outputs: Floats) -> bool:
        """A device returned `outputs` for these rows. Returns False if they are known to be wrong already."""
        self.rows_seen += len(inputs)
        way = self._way(part, layers)
        if way is None or part.start >= way.until:
            return True
        way.seen.append(_Seen(device, part.start, np.array(inputs), np.array(outputs)))
        if self._share >= 1:
            return self._compare(way, self._taken(way)) is None
        rows = sum(len(seen.inputs) for seen in way.seen)
        lots = 1 - (1 - EACH_TIME) ** len(inputs)
        if rows >= AT_ONCE_ROWS or self._random.random() < lots:
            self._give(way, self._taken(way))
        return True

    def found(self) -> Lie | None:
        """A wrong result that was found since the last call."""
        try:
            return self._lies.get_nowait()
        except queue.Empty:
            return None

    def finish(self) -> None:
        """Compare what was seen and is followed, and wait for it."""
        for ways in list(self._ways.values()):
            for way in ways.values():
                if way.seen:
                    self._give(way, self._taken(way))
        with self._room:
            self._room.wait_for(lambda: not self._waiting_bytes)

    def close(self) -> None:
        """End the thread; what it has not compared yet is not compared."""
        if self._thread is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._jobs.get_nowait()
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _way(self, part: SpanPart, layers: range) -> _Way | None:
        ways = self._ways.setdefault(part.cache, {})
        if layers not in ways:
            if not self._holds(layers):
                return None
            if self._kernels is None:
                self._kernels = self._make_kernels()
            if layers not in self._layers:
                self._layers[layers] = SpanLayers(self._model, self._kernels, layers)
            cache, opened = part.cache, self._layers[layers]
            way = _Way(
                cache=weakref.ref(cache),
                until=self._drawn(cache),
                own=opened.new_cache(cache.capacity, cache.reach),
                layers=opened,
                seen=[],
            )
            if part.start:  # it began as another sequence
                inputs = np.array(cache.inputs[layers.start].rows(0, part.start))
                way.seen.append(_Seen(None, 0, inputs, inputs))
            ways[layers] = way
        return ways[layers]

    def _drawn(self, cache: KVCache) -> int:
        if self._random.random() < self._share:
            return cache.capacity
        return round(self._random.expovariate(1 / ALWAYS_ROWS))

    def _taken(self, way: _Way) -> list[_Seen]:
        seen, way.seen = way.seen, []
        return seen

    def _give(self, way: _Way, seen: list[_Seen]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="recheck", daemon=True)
            self._thread.start()
        num_bytes = sum(each.num_bytes for each in seen)
        with self._room:
            self._room.wait_for(
                lambda: self._waiting_bytes + num_bytes <= MAX_WAITING_BYTES or not self._waiting_bytes
            )
            self._waiting_bytes += num_bytes
        self._jobs.put((way, seen))

    def _main(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        while (job := self._jobs.get()) is not None:
            way, seen = job
            try:
                lie = self._compare(way, seen) if way.until else None
            except Exception:  # nothing was proved, and nothing can be any more
                log.exception("a result of a span could not be computed again")
                lie, way.until = None, 0
            if lie is not None:
                self._lies.put(lie)
            with self._room:
                self._waiting_bytes -= sum(each.num_bytes for each in seen)
                self._room.notify_all()

    def _compare(self, way: _Way, seen: list[_Seen]) -> Lie | None:
        """Compute rows again; the first that differs is a lie. The others are computed too, because those that come
        after them need their keys and values."""
        lie: Lie | None = None
        for each in seen:
            stop = each.start + len(each.inputs)
            assert each.start <= way.own.length, "rows are compared in their order"
            rows = way.layers.forward(np.array(each.inputs), [SpanPart(way.own, each.start, stop)])
            if each.device is None:
                continue
            wrong = (rows.view(np.uint32) != each.outputs.view(np.uint32)).any(axis=1)
            self.rows_wrong += int(wrong.sum())
            self.rows_equal += int(len(rows) - wrong.sum())
            if wrong.any() and lie is None:
                lie = Lie(each.device, way.cache, each.start + int(wrong.argmax()), way.layers.layers)
        return lie
