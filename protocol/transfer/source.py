"""One source of blobs as a fetch sees it: what was asked of it, its credit, how fast it is."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct, field

from protocol.identity import PeerId
from protocol.limits import MAX_OPEN_PIECES, PIECE_BYTES

RATE_WEIGHT = 0.3
"""Weight of the newest piece in the exponentially weighted mean of the speed."""
MAX_CANCELLED = 256
"""Given-up pieces that are remembered: far more than can be under way."""


class Ask(Struct):
    """One question that a source has not answered yet; `index` is None where an outline was asked for."""

    sha256: bytes
    index: int | None
    asked_at: float
    size_bytes: int = 0
    data: bytearray = field(default_factory=bytearray)


class Source(Struct):
    """State of one connection to one peer."""

    peer_id: PeerId
    next_id: int
    window_bytes: int
    holds: set[bytes]
    """Blobs it is thought to hold."""
    heard_at: float
    asks: dict[int, Ask] = field(default_factory=dict)
    claims: dict[bytes, bytes] = field(default_factory=dict)
    """For each blob, the root of the outline that it stated."""
    granted_bytes: int = 0
    announced_bytes: int = 0
    received_bytes: int = 0
    """Bytes of slices: never more than was announced."""
    bytes_per_s: float = 0.0
    silent_until: float = 0.0
    """Nothing is asked of it before this time."""
    stalls: int = 0
    cancelled: OrderedDict[int, int] = field(default_factory=OrderedDict)
    """Bytes that may still come of pieces that were given up, by message id."""

    @property
    def owed_bytes(self) -> int:
        """Bytes of pieces that were asked for and have not come."""
        return sum(ask.size_bytes - len(ask.data) for ask in self.asks.values())

    def has_room(self, now: float) -> bool:
        """Whether another piece may be asked of it."""
        pieces = sum(ask.index is not None for ask in self.asks.values())
        return (
            now >= self.silent_until
            and self.owed_bytes + PIECE_BYTES <= self.window_bytes
            and pieces < MAX_OPEN_PIECES
        )

    def opened(self, ask: Ask) -> int:
        """Remember a question; the message id to send it under."""
        self.next_id += 1
        self.asks[self.next_id] = ask
        return self.next_id

    def gave_up(self, message_id: int, ask: Ask) -> None:
        """A piece is not wanted any more, though slices of it may be under way."""
        self.cancelled[message_id] = ask.size_bytes - len(ask.data)
        while len(self.cancelled) > MAX_CANCELLED:
            self.cancelled.popitem(last=False)

    def takes_back(self, message_id: int, num_bytes: int) -> bool:
        """Whether a slice that nobody waits for is one of a piece that was given up."""
        left = self.cancelled.get(message_id, 0)
        if num_bytes > left:
            return False
        self.cancelled[message_id] = left - num_bytes
        return True

    def delivered(self, ask: Ask, now: float) -> None:
        """A piece came whole."""
        speed = ask.size_bytes / max(now - ask.asked_at, 1e-4)
        self.bytes_per_s += (RATE_WEIGHT if self.bytes_per_s else 1.0) * (speed - self.bytes_per_s)
        self.stalls = 0

    def credit_due(self) -> int | None:
        """The new total of credit, once half a window of it is to be announced."""
        if self.granted_bytes - self.announced_bytes < self.window_bytes // 2:
            return None
        self.announced_bytes = self.granted_bytes
        return self.granted_bytes
