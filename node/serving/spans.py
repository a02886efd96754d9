"""Spans that this device computes for devices of the same owner: their KV caches, and the layers.

Requests come in the data plane's thread; steps are computed by one thread at a time, which may be another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar

import numpy as np
from msgspec import Struct

from node.errors import PromptError
from node.kernels.interface import Kernels, NotFiniteError
from node.model.cache import KVCache
from node.model.span import SpanLayers, SpanPart
from node.serving.refusal import RequestError
from node.store.stored import StoredModel
from protocol.discreet import Discreet
from protocol.identity import PeerId
from protocol.linear.field import Floats
from protocol.message import ErrorCode, ErrorReply, Message
from protocol.spans.binding import SpanBinding, SpanRows, rows_hash, span_digest
from protocol.spans.messages import SpanOpen, SpanOpened, SpanPass, SpanResult, SpanStep
from protocol.spans.onward import is_sealed

log = logging.getLogger(__name__)

IDLE_S = 900.0
"""A cache is dropped when no step has come for so long; its client sends the rows again if it needs it."""
MAX_CACHES = 128
MAX_CACHES_A_PEER = 64
MAX_CANCELLED = 1024
"""Most cancelled steps that are remembered, of all clients."""
LEAST_BYTES = 64 << 20
"""So much memory all caches may always take: less holds no text of a few hundred tokens."""
MAX_KEPT_SPANS = 8
"""Most spans whose layers are kept ready."""

ModelOf = Callable[[bytes], StoredModel | None]
"""The model of an id whose layers this device holds; None for any other."""


class Client(Struct, frozen=True):
    """Who opened a cache, and the connection over which its last message came."""

    peer_id: PeerId
    socket: Any = None
    route: bytes | None = None


class _Held(Discreet, Struct):
    """A cache of a client."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("key", "cache")
    client: Client
    key: bytes
    """With it the client seals steps that others hand on."""
    model_id: bytes
    layers: range
    cache: KVCache
    used_at: float
    newest: int = -1
    """The highest nonce of its steps: one that is handed on counts once, and not after a later one."""


class SpanCaches:
    """Opens and closes caches, and computes steps. Safe to use from two threads.

    Args:
        limit_bytes: how much memory all caches together may take.
    """

    def __init__(
        self,
        kernels: Kernels,
        model_of: ModelOf,
        limit_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernels, self._model_of, self._limit_bytes, self._clock = kernels, model_of, limit_bytes, clock
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        """By id, the one that was used longest ago first."""
        self._cancelled: OrderedDict[tuple[PeerId, int], None] = OrderedDict()
        """Steps that are not wanted any more, by client; the oldest first."""
        self._spans: OrderedDict[tuple[bytes, range], SpanLayers] = OrderedDict()
        self._row_macs: dict[tuple[bytes, int, int], int] = {}
        """By model and layers."""
        self._in_use: Counter[bytes] = Counter()
        """Caches of steps that have begun and are not finished."""

    @property
    def num_bytes(self) -> int:
        """Memory of all caches."""
        with self._lock:
            return sum(held.cache.num_bytes for held in self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def open(self, client: Client, request: SpanOpen) -> Message:
        """The answer to a request for a cache."""
        peer_id, model = client.peer_id, self._model_of(request.model_id)
        if model is None or request.end > model.config.num_layers or not _holds(model, request):
            return ErrorReply(ErrorCode.NOT_FOUND, "these layers are not held here")
        with self._lock:
            if request.cache in self._held:
                return ErrorReply(ErrorCode.INVALID, "this cache is open")
            own = [cache for cache, held in self._held.items() if held.client.peer_id == peer_id]
            if len(own) >= MAX_CACHES_A_PEER and not self._drop(own[0]):
                return ErrorReply(ErrorCode.EXHAUSTED, "too many caches are open")
            if len(self._held) >= MAX_CACHES:
                return ErrorReply(ErrorCode.EXHAUSTED, "too many caches are open here")
            layers = range(request.first, request.end)
            cache = KVCache(model.config, request.capacity, request.reach, layers)
            self._held[request.cache] = _Held(client, request.key, request.model_id, layers, cache, self._clock())
        return SpanOpened(round(IDLE_S))

    def close(self, peer_id: PeerId, cache: bytes) -> None:
        """Drop a cache of this peer, if there is one of this id."""
        with self._lock:
            held = self._held.get(cache)
            if held is not None and held.client.peer_id == peer_id:
                del self._held[cache]

    def forget(self, peer_id: PeerId) -> None:
        """Drop all caches of a peer."""
        with self._lock:
            for cache in [cache for cache, held in self._held.items() if held.client.peer_id == peer_id]:
                del self._held[cache]

    def drop_idle(self) -> None:
        """Drop caches that nobody has used for IDLE_S, and layers of models that are not held any more."""
        with self._lock:
            kept = list(self._spans)
        gone = [key for key in kept if self._model_of(key[0]) is None]
        with self._lock:
            for key in gone:
                self._spans.pop(key, None)
            until = self._clock() - IDLE_S
            for cache in [cache for cache, held in self._held.items() if held.used_at < until]:
                self._drop(cache)

    def admit(self, client: Client, step: SpanStep) -> bool:
        """Whether no cache of a step is another peer's."""
        with self._lock:
            held = [self._held.get(rows.cache) for rows in step.binding.parts]
            if any(one is not None and one.client.peer_id != client.peer_id for one in held):
                return False
            for one in held:
                if one is not None:
                    one.client, one.newest = client, max(one.newest, step.binding.nonce)
        return True

    def client_of(self, sender: PeerId, step: SpanPass) -> Client | None:
        """Who gets the answer to a step that another device hands on; None where its caches are not here, its client
        has not sealed it for this sender, or has cancelled it, or it or a later one has come before."""
        with self._lock:
            known = [self._held.get(rows.cache) for rows in step.binding.parts]
            held = [one for one in known if one is not None]
            if len(held) < len(known) or any(one.client != held[0].client for one in held):
                return None
            client, nonce = held[0].client, step.binding.nonce
            if not is_sealed(held[0].key, sender, step.binding, step.onward, step.seal):
                return None
            if (client.peer_id, nonce) in self._cancelled or any(one.newest >= nonce for one in held):
                return None
            for one in held:
                one.newest = nonce
            return client

    def cancel(self, peer_id: PeerId, request_id: int) -> None:
        """A client wants no result of this step any more, which another device may hand on yet."""
        with self._lock:
            if any(held.client.peer_id == peer_id for held in self._held.values()):
                self._cancelled[peer_id, request_id] = None
                if len(self._cancelled) > MAX_CANCELLED:
                    self._cancelled.popitem(last=False)

    def macs(self, step: SpanStep) -> int:
        """Multiply-accumulates of a step, without its attention; 0 if it cannot be computed here."""
        binding, model = step.binding, self._model_of(step.model_id)
        if model is None:
            return 0
        key = (binding.model_id, binding.first, binding.end)
        if key not in self._row_macs:
            if len(self._row_macs) >= MAX_CACHES:
                self._row_macs.clear()
            units = [ref for ref in model.units if ref.layer in range(binding.first, binding.end)]
            self._row_macs[key] = sum(ref.num_inputs * ref.num_outputs for ref in units)
        return binding.num_rows * self._row_macs[key]

    def has_ready(self, step: SpanStep) -> bool:
        """Whether the layers of a step are ready: else it may read files before it computes."""
        binding = step.binding
        with self._lock:
            return (binding.model_id, range(binding.first, binding.end)) in self._spans

    def parts(
        self, steps: Sequence[SpanStep], part_s: Callable[[], float]
    ) -> Generator[None, None, list[SpanResult | RequestError]]:
        """Compute steps through the same layers together, in parts of about `part_s` seconds; for each its result, or
        why it has none. Every result has the bits that it would have alone."""
        refused, begun = dict[int, RequestError](), list[_Begun]()
        try:
            for place, step in enumerate(steps):
                try:
                    begun.append(_Begun(place, step, *self._begin(step.binding, step.rows.shape[1])))
                except RequestError as exc:
                    refused[place] = exc
                except MemoryError:
                    refused[place] = RequestError(ErrorCode.EXHAUSTED, "there is no memory for a longer text here")
            results = (yield from _computed(begun, part_s)) if begun else {}
        finally:
            for one in begun:
                self._release(one.step.binding)
        if results is None:  # of several one cannot be computed: each is, alone
            results = {}
            for one in begun:
                (results[one.place],) = yield from self.parts([one.step], part_s)
        outcomes = {**refused, **results}
        return [outcomes[place] for place in range(len(steps))]

    def _begin(self, binding: SpanBinding, hidden_size: int) -> tuple[SpanLayers, list[SpanPart]]:
        layers = range(binding.first, binding.end)
        model = self._model_of(binding.model_id)
        if model is None:
            raise RequestError(ErrorCode.NOT_FOUND, "these layers are not held here")
        if hidden_size != model.config.hidden_size:
            raise RequestError(ErrorCode.INVALID, f"rows of this model have {model.config.hidden_size} elements")
        with self._lock:
            parts = [self._part(binding, layers, rows) for rows in binding.parts]
            added = sum(part.cache.added_bytes(part.stop) for part in parts)
            self._make_room(added, {rows.cache for rows in binding.parts})
            for part in parts:
                part.prepare()  # what others add counts from now on
            self._in_use.update(rows.cache for rows in binding.parts)
        try:
            return self._layers(model, binding.model_id, layers), parts
        except BaseException:
            self._release(binding)
            raise

    def _release(self, binding: SpanBinding) -> None:
        with self._lock:
            self._in_use -= Counter(rows.cache for rows in binding.parts)

    def _part(self, binding: SpanBinding, layers: range, rows: SpanRows) -> SpanPart:
        held = self._held.get(rows.cache)
        if held is None or held.cache.length < rows.start:
            raise RequestError(ErrorCode.NO_CACHE, "the cache is gone: open another and send its rows again")
        if held.model_id != binding.model_id or held.layers != layers:
            raise RequestError(ErrorCode.INVALID, "the cache is of other layers")
        if rows.stop > held.cache.capacity:
            raise RequestError(ErrorCode.INVALID, "the cache has no room for so many tokens")
        held.used_at = self._clock()
        self._held.move_to_end(rows.cache)
        return SpanPart(held.cache, rows.start, rows.stop)

    def _make_room(self, added_bytes: int, wanted: set[bytes]) -> None:
        """Drop caches that were used longest ago, until so much more has room; the lock is held."""
        if not added_bytes:
            return
        limit = self._limit_bytes()
        while sum(held.cache.num_bytes for held in self._held.values()) + added_bytes > limit:
            oldest = next((cache for cache in self._held if cache not in wanted), None)
            if oldest is None or not self._drop(oldest):
                raise RequestError(ErrorCode.EXHAUSTED, "there is no memory for a longer text here")
            log.info("a cache was dropped to make room for another")

    def _drop(self, cache: bytes) -> bool:
        """Drop a cache unless it is in use; the lock is held."""
        if cache in self._in_use:
            return False
        self._held.pop(cache, None)
        return True

    def _layers(self, model: StoredModel, model_id: bytes, layers: range) -> SpanLayers:
        """The layers of a span; only the computing thread calls it."""
        with self._lock:
            known = self._spans.pop((model_id, layers), None)
        known = known or SpanLayers(model, self._kernels, layers)  # it may read files, so the lock is not held
        with self._lock:
            self._spans[model_id, layers] = known
            while len(self._spans) > MAX_KEPT_SPANS:
                self._spans.popitem(last=False)
        return known


class _Begun(Struct, frozen=True):
    """A step that is computed."""

    place: int
    """Which of the steps that are computed together."""
    step: SpanStep
    layers: SpanLayers
    parts: list[SpanPart]


def _computed(
    begun: Sequence[_Begun], part_s: Callable[[], float]
) -> Generator[None, None, dict[int, SpanResult | RequestError] | None]:
    """The outcome of each; None where several were computed together and that failed for the sake of one."""
    hidden = np.concatenate([one.step.rows for one in begun])
    seconds, resumed = 0.0, time.perf_counter()
    steps = begun[0].layers.steps(
        hidden, [part for one in begun for part in one.parts], lambda: time.perf_counter() - resumed >= part_s()
    )
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            hidden = finished.value
            break
        except (NotFiniteError, PromptError) as exc:
            return None if len(begun) > 1 else {begun[0].place: RequestError(ErrorCode.INVALID, str(exc))}
        seconds += time.perf_counter() - resumed
        yield
        resumed = time.perf_counter()
    seconds += time.perf_counter() - resumed
    outcomes, first = dict[int, SpanResult | RequestError](), 0
    for one in begun:
        rows = hidden[first : first + one.step.num_rows]
        first += len(rows)
        outcomes[one.place] = _result(one.step, rows, seconds)
    return outcomes


def _result(step: SpanStep, rows: Floats, seconds: float) -> SpanResult | RequestError:
    if not np.isfinite(rows).all():
        return RequestError(ErrorCode.INVALID, "the layers give values that are not finite")
    inputs = rows_hash(step.rows) if isinstance(step, SpanPass) else None
    return SpanResult(span_digest(step.binding, rows), round(seconds * 1e6), rows, inputs)


def _holds(model: StoredModel, request: SpanOpen) -> bool:
    wanted = [ref for ref in model.units if ref.layer is not None and request.first <= ref.layer < request.end]
    return all(model.holds(ref) for ref in wanted)
