"""A device of the same owner that computes spans in a session: its connection, its caches, the steps it owes."""

from __future__ import annotations

import secrets
import time
import weakref
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

from msgspec import Struct

from node.execution.peer import PeerStatus, SessionPeer
from node.model.cache import KVCache
from node.model.span import SpanPart
from protocol.identity import PeerId
from protocol.limits import CACHE_BYTES, WAY_KEY_BYTES
from protocol.linear.field import Floats
from protocol.message import Cancel, Message, Ping
from protocol.spans.binding import SpanBinding, SpanRows
from protocol.spans.messages import SpanClose, SpanOpen, SpanStep
from protocol.spans.onward import Onward, seal_of

PING_AFTER_S = 1.0
"""A device that owes an answer and is silent for so long is asked whether it is alive."""
DEAD_AFTER_S = 4.0
"""A device that answers not even that for so long is dead, or frozen, or its network is gone."""
MAX_UNASKED = 64
"""A device that sends so many messages that nobody asked for is left."""
MAX_CANCELLED = 256
"""So many steps that are not wanted any more are remembered."""
DISAGREE = "it and another device of yours computed different results, and this one cannot tell which is wrong"
STEP_LIMIT_S = 120.0
"""A device that is alive and does not finish a step for so long is given up."""


class RemoteCache(Struct):
    """The cache of one sequence and one span at a device."""

    id: bytes
    held: int = 0
    """Tokens of which it is known to hold the keys and values."""


class Flight(Struct, frozen=True):
    """A step under way."""

    binding: SpanBinding
    parts: tuple[SpanPart, ...]
    sent_at: float
    handed: bool = False
    """Whether the rows come from another device."""


class DeviceError(Exception):
    """A device cannot do its part; it says why, for the user."""

    def __init__(self, device: SpanDevice, reason: str) -> None:
        super().__init__(reason)
        self.device = device


class SpanDevice:
    """Only the session's thread uses it."""

    def __init__(self, peer: SessionPeer, model_id: bytes, may_read: Callable[[], bool], hidden_size: int) -> None:
        """
        Args:
            may_read: whether the user lets it read prompts, asked before every step.
        """
        self.peer = peer
        self._may_read = may_read
        self._hidden_size = hidden_size
        self.flights: dict[int, Flight] = {}
        self.opens: set[int] = set()
        """Ids of requests for caches that are not answered."""
        self._model_id = model_id
        self._key = secrets.token_bytes(WAY_KEY_BYTES)
        self._caches: WeakKeyDictionary[KVCache, dict[range, RemoteCache]] = WeakKeyDictionary()
        self._gone: deque[bytes] = deque()
        """Caches whose sequences have ended here; filled by whichever thread drops the last reference."""
        self._heard_at = self._pinged_at = 0.0
        self._unasked = 0
        self._cancelled: deque[int] = deque(maxlen=MAX_CANCELLED)
        """Steps that were not wanted any more; answers that were under way may still come."""

    @property
    def peer_id(self) -> PeerId:
        return self.peer.peer_id

    @property
    def is_usable(self) -> bool:
        """Whether it may get steps."""
        return self.trouble is None

    @property
    def trouble(self) -> str | None:
        """Why it gets no steps; None if it does."""
        if self.peer.status is PeerStatus.DOUBTED:
            return DISAGREE
        if self.peer.gone:
            return "it is banned" if self.peer.rejected else "it sent too much that nobody asked for"
        if not self._may_read():
            return "you no longer let it read prompts"
        if self.peer.leaving:
            return "it has left, or is not wanted here"
        return None if self.peer.usable else "it is not connected"

    def held(self, cache: KVCache, layers: range) -> RemoteCache:
        """Its cache for a sequence and a span, which is opened if there is none."""
        caches = self._caches.setdefault(cache, {})
        if layers not in caches:
            remote = caches[layers] = RemoteCache(secrets.token_bytes(CACHE_BYTES))
            weakref.finalize(cache, self._gone.append, remote.id)
            request = SpanOpen(
                remote.id,
                self._model_id,
                layers.start,
                layers.stop,
                cache.capacity,
                min(cache.reach, cache.capacity),
                self._key,
            )
            self.opens.add(self._send(request))
        return caches[layers]

    def tokens(self, layers: range) -> int:
        """Tokens that its caches of a span hold, of all sequences."""
        return sum(caches[layers].held for caches in list(self._caches.values()) if layers in caches)

    def forget_caches(self) -> None:
        """It has lost its caches, or some of them: others are opened when they are needed."""
        for caches in self._caches.values():
            self._gone.extend(remote.id for remote in caches.values())
        self._caches.clear()
        self._cancelled.extend(self.opens)
        self.opens.clear()

    def send_step(
        self, layers: range, parts: tuple[SpanPart, ...], rows: Floats, onward: tuple[Onward, ...] = ()
    ) -> int:
        """Send rows f32[T, D] through a span; returns the id of the step.

        Args:
            onward: the devices to which its result goes on.

        Raises:
            DeviceError: it may not get them, or its connection does not take them.
        """
        binding = self._binding(layers, parts)
        if not self.peer.channel.send(SpanStep(binding, rows, onward), binding.nonce):
            raise DeviceError(self, "its connection takes no more")
        self._owes(Flight(binding, parts, time.monotonic()))
        return binding.nonce

    def expect_step(
        self, sender: PeerId, layers: range, parts: tuple[SpanPart, ...], onward: tuple[Onward, ...]
    ) -> Onward:
        """The same where another device hands the rows on: what that one is to send.

        Raises:
            DeviceError: it may not get them.
        """
        binding = self._binding(layers, parts)
        self._owes(Flight(binding, parts, time.monotonic(), handed=True))
        return Onward(self.peer_id, binding, seal_of(self._key, sender, binding, onward))

    def _binding(self, layers: range, parts: tuple[SpanPart, ...]) -> SpanBinding:
        if self.trouble is not None:
            raise DeviceError(self, self.trouble)
        caches = [self.held(part.cache, layers) for part in parts]
        entries = tuple(
            SpanRows(remote.id, part.start, part.stop) for remote, part in zip(caches, parts, strict=True)
        )
        return SpanBinding(next(self.peer.ids), self._model_id, layers.start, layers.stop, entries)

    def _owes(self, flight: Flight) -> None:
        if not self.flights:
            self._heard_at = flight.sent_at
        self.flights[flight.binding.nonce] = flight

    def computed(self, flight: Flight) -> None:
        """The result of a step has come: its caches hold these rows too."""
        layers = range(flight.binding.first, flight.binding.end)
        for part in flight.parts:
            self.held(part.cache, layers).held = part.stop

    def heard(self, message_id: int, was_asked: bool) -> None:
        """It sent something; what nobody asked for is no sign of life."""
        if was_asked:
            self._heard_at = time.monotonic()
        elif message_id in self._cancelled:
            self._cancelled.remove(message_id)
        else:
            self._unasked += 1

    @property
    def is_noisy(self) -> bool:
        """Whether it sends too much that nobody asked for."""
        owed = sum(4 * part.stop - 4 * part.start for flight in self.flights.values() for part in flight.parts)
        return self._unasked > MAX_UNASKED or self.peer.channel.is_overfull(owed * self._hidden_size)

    def check_alive(self) -> None:
        """Ask a silent device whether it is alive. Called right after its messages were read.

        Raises:
            DeviceError: it is silent although it was asked, or it takes too long.
        """
        if not self.flights:
            return
        now, oldest = time.monotonic(), next(iter(self.flights.values()))
        if now - oldest.sent_at > STEP_LIMIT_S and not oldest.handed:  # the chain looks for those
            raise DeviceError(self, f"it did not finish a step within {STEP_LIMIT_S:.0f} s")
        if self._pinged_at <= self._heard_at:
            if now - self._heard_at > PING_AFTER_S:
                self._pinged_at = now
                self._send(Ping())
        elif now - self._pinged_at > DEAD_AFTER_S - PING_AFTER_S:
            raise DeviceError(self, f"it has been silent for {DEAD_AFTER_S:.0f} s")

    def cancel(self) -> None:
        """What is under way is not wanted any more."""
        for message_id in list(self.flights):
            self.cancel_step(message_id)

    def cancel_step(self, message_id: int) -> None:
        """A step is not wanted any more."""
        if not self.peer.channel.closed:
            self.peer.channel.send(Cancel(message_id), message_id)
        self._cancelled.append(message_id)
        del self.flights[message_id]

    def close_ended(self) -> None:
        """Tell it which caches are not needed any more."""
        while self._gone:
            self._send(SpanClose(self._gone.popleft()))

    def close(self) -> None:
        """End all caches, and the connection."""
        self.cancel()
        self.forget_caches()
        if not self.peer.channel.closed:
            self.close_ended()
            self.peer.channel.close()

    def _send(self, message: Message) -> int:
        message_id = next(self.peer.ids)
        if not self.peer.channel.closed:
            self.peer.channel.send(message, message_id)
        return message_id
