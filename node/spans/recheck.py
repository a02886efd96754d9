"""Computes results of spans again, and compares every bit.

Which results are computed again is drawn in secret. To compute one row again, the rows before it are needed too, so
what is drawn is how far each sequence is followed through each span: a short random way always, so that a device
that errs often is found soon, and the whole way with the probability that the user chose. Checks run in a thread
that takes only time that nobody else wants. With a share of 1, every result is compared before it is used.

Where the weights are not here, another device of the same owner computes the rows again. If the two differ, nothing
here can tell which is wrong, and neither is used any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary, ref

import numpy as np
from msgspec import Struct

from node.execution.interrupt import PassCancelledError
from node.model.cache import KVCache
from node.model.span import SpanPart
from node.privacy import DEFAULT_RECHECK
from node.spans.crew import CacheGoneError
from node.spans.device import DeviceError, SpanDevice
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


class Layers(Protocol):
    """Some layers, as they are computed again."""

    @property
    def layers(self) -> range: ...

    def new_cache(self, capacity: int, reach: int) -> KVCache: ...

    def forward(self, hidden: Floats, parts: Sequence[SpanPart]) -> Floats: ...


class Again(Struct, frozen=True):
    """Who computes layers again."""

    layers: Layers
    witness: SpanDevice | None = None
    """Another device; None: this one, with weights whose hashes are right."""


OpenLayers = Callable[[range, SpanDevice], Again | None]
"""Finds somebody who computes these layers of this device again; None where nobody can."""


class Lie(Struct, frozen=True):
    """A wrong result."""

    device: SpanDevice
    cache: ref[KVCache]
    """The sequence; it may have ended."""
    position: int
    """Its first wrong row."""
    layers: range
    witness: SpanDevice | None = None
    """The device that computed it again: then either of the two may be wrong."""


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
    by: Again
    seen: list[_Seen]


class Recheck:
    """Only the session's thread calls it.

    Args:
        again: finds who computes layers again; called in the session's thread, and what it returns is used by the
            comparing thread alone (with a share of 1, by the session's).
        share: the probability with which a sequence is followed to its end through a span; 1: before use.
    """

    def __init__(self, again: OpenLayers, share: float = DEFAULT_RECHECK) -> None:
        self._again, self._share = again, share
        self._random = secrets.SystemRandom()
        self._ways: WeakKeyDictionary[KVCache, dict[range, _Way | None]] = WeakKeyDictionary()
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
        """Rows that were computed again here, and were not."""
        self.rows_elsewhere = 0
        """Rows that another device computed again."""
        self.rows_differ = 0
        """Of those, the ones that were not the same."""
        self.witnesses: list[SpanDevice] = []
        """Other devices that have computed something again."""
        self.ends = False
        """Whether nothing more is compared."""

    def saw(self, device: SpanDevice, layers: range, part: SpanPart, inputs: Floats, outputs: Floats) -> Lie | None:
        """A device returned `outputs` for these rows. Returns what is known to be wrong already."""
        self.rows_seen += len(inputs)
        way = self._way(device, part, layers)
        if way is None or part.start >= way.until:
            return None
        if way.by.witness is not None:
            way.by.witness.peer.chunks += 1  # it reads rows of this request, whenever they are sent
        way.seen.append(_Seen(device, part.start, np.array(inputs), np.array(outputs)))
        if self._share >= 1:
            try:
                return self._compare(way, self._taken(way))
            except (DeviceError, CacheGoneError) as exc:
                self._stop_following(way, exc)
                return None
            except PassCancelledError:
                del self._ways[part.cache][layers]  # it begins anew, from the rows that are kept
                raise
        rows = sum(len(seen.inputs) for seen in way.seen)
        lots = 1 - (1 - EACH_TIME) ** len(inputs)
        if rows >= AT_ONCE_ROWS or self._random.random() < lots:
            self._give(way, self._taken(way))
        return None

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
                if way is not None and way.seen:
                    self._give(way, self._taken(way))
        with self._room:
            self._room.wait_for(lambda: not self._waiting_bytes)

    def close(self) -> None:
        """End the thread; what it has not compared yet is not compared."""
        self.ends = True
        if self._thread is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._jobs.get_nowait()
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _way(self, device: SpanDevice, part: SpanPart, layers: range) -> _Way | None:
        ways = self._ways.setdefault(part.cache, {})
        if layers not in ways:
            cache, by = part.cache, self._again(layers, device)
            if by is None:
                ways[layers] = None
                return None
            if by.witness is not None and by.witness not in self.witnesses:
                self.witnesses.append(by.witness)
            own = by.layers.new_cache(cache.capacity, cache.reach)
            way = _Way(cache=weakref.ref(cache), until=self._drawn(cache), own=own, by=by, seen=[])
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
            if way.by.witness is not None and self._waiting_bytes + num_bytes > MAX_WAITING_BYTES:
                way.until = 0  # an answer does not wait for a device that does not compute it
                return
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
            except (DeviceError, CacheGoneError, PassCancelledError) as exc:
                self._stop_following(way, exc)
                lie = None
            except Exception:  # nothing was proved, and nothing can be any more
                log.exception("a result of a span could not be computed again")
                lie, way.until = None, 0
            if lie is not None:
                self._lies.put(lie)
            with self._room:
                self._waiting_bytes -= sum(each.num_bytes for each in seen)
                self._room.notify_all()

    @staticmethod
    def _stop_following(way: _Way, exc: Exception) -> None:
        log.info("another device computes a span again no longer: %s", exc)
        way.until = 0

    def _compare(self, way: _Way, seen: list[_Seen]) -> Lie | None:
        """Compute rows again; the first that differs is a lie. The others are computed too, because those that come
        after them need their keys and values."""
        lie: Lie | None = None
        layers, witness = way.by.layers, way.by.witness
        for each in seen:
            if each.device is not None and witness is not None and each.device.peer_id == witness.peer_id:
                raise DeviceError(witness, "the layers have come to the device that computed them again")
            stop = each.start + len(each.inputs)
            assert each.start <= way.own.length, "rows are compared in their order"
            rows = layers.forward(np.array(each.inputs), [SpanPart(way.own, each.start, stop)])
            if each.device is None:
                continue
            wrong = (rows.view(np.uint32) != each.outputs.view(np.uint32)).any(axis=1)
            self.rows_equal += int(len(rows) - wrong.sum())
            if witness is None:
                self.rows_wrong += int(wrong.sum())
            else:
                self.rows_elsewhere += len(rows)
                self.rows_differ += int(wrong.sum())
            if wrong.any() and lie is None:
                lie = Lie(each.device, way.cache, each.start + int(wrong.argmax()), layers.layers, witness)
        return lie
