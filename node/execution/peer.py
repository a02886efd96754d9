"""A peer as one session sees it: its role, its connection, what it owes, how fast it is, whether it is trusted."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from node.execution.config import ExecutionConfig
from node.store.unit import UnitRef
from node.transport.channel import Channel
from protocol.field import Elements
from protocol.identity import PeerId
from protocol.limits import SESSION_BYTES
from protocol.messages import ChunkBinding, Linear, Role

WINDOW = 64
"""Latencies remembered for each row bucket."""
MIN_SAMPLES = 8
"""Below this many samples a percentile says nothing."""
SPEED_WEIGHT = 0.2
"""Weight of the newest sample in the exponentially weighted mean of the speed."""
LATE_LIMIT = 2
"""Late answers in a row after which a peer gets no new rows until it answers again."""


class PeerStatus(Enum):
    """Whether a peer gets work."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    BANNED = "banned"


@dataclass(slots=True)
class Request:
    """One message that a peer owes an answer to."""

    id: int
    binding: ChunkBinding
    unit: UnitRef
    inputs: Elements
    """`[num_rows, K]`: the elements that the peer works on, for the check."""
    owner: Any
    """The ChunkRecord or PadBatch that waits for it."""
    message: Linear
    sent_at: float
    macs: int
    abandoned: bool = False
    """Its chunk was computed otherwise; the answer is only news of the peer."""


@dataclass(slots=True)
class SessionPeer:
    """State of one peer in one role; the session's thread alone touches it."""

    peer_id: PeerId
    role: Role
    channel: Channel
    macs_per_s: float
    rtt_s: float
    session: bytes = field(default_factory=lambda: secrets.token_bytes(SESSION_BYTES), repr=False)
    """What its requests are bound to; another one for every peer, so that guards cannot match their records by it."""
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(secrets.randbits(62)), repr=False)
    """Message ids. They begin at random: an attached peer's connection outlives a session, and an answer to the one
    before must not look like an answer in this one."""
    status: PeerStatus = PeerStatus.ACTIVE
    in_flight: dict[int, Request] = field(default_factory=dict)
    chunks: int = 0
    rejected: int = 0
    late_in_a_row: int = 0
    latencies_s: dict[int, deque[float]] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether new rows may go to it."""
        return self.status is PeerStatus.ACTIVE and self.channel.connected

    def answered(self, request: Request, now: float) -> None:
        """A reply came; it counts for latency and speed and ends a suspension."""
        latency_s = now - request.sent_at
        bucket = request.binding.num_rows
        self.latencies_s.setdefault(bucket, deque(maxlen=WINDOW)).append(latency_s)
        if bucket > 1 and latency_s > 0:
            self.macs_per_s += SPEED_WEIGHT * (request.macs / latency_s - self.macs_per_s)
        self.resume()

    def resume(self) -> None:
        """It is there again: an answer of any kind, or a new connection, on which nothing is owed."""
        self.late_in_a_row = 0
        if self.status is PeerStatus.SUSPENDED:
            self.status = PeerStatus.ACTIVE

    def was_late(self) -> None:
        """A chunk had to be computed locally because this peer did not answer in time."""
        self.late_in_a_row += 1
        if self.late_in_a_row >= LATE_LIMIT and self.status is PeerStatus.ACTIVE:
            self.status = PeerStatus.SUSPENDED

    def ban(self) -> None:
        """It failed the gate: nothing more in this session."""
        self.status = PeerStatus.BANNED
        self.rejected += 1

    def percentile_95_s(self, num_rows: int) -> float | None:
        """95th percentile of the latency of chunks of this many rows.

        Where such chunks were too few, that of another bucket stands in, scaled up to more rows but never down
        to fewer. None where nothing was measured often enough.
        """
        measured = {rows: seen for rows, seen in self.latencies_s.items() if len(seen) >= MIN_SAMPLES}
        if not measured:
            return None
        bucket = num_rows if num_rows in measured else min(measured, key=lambda rows: abs(rows - num_rows))
        samples = sorted(measured[bucket])
        return samples[int(0.95 * (len(samples) - 1))] * max(1.0, num_rows / bucket)

    def patience_s(self, num_rows: int, macs_per_row: int, config: ExecutionConfig) -> float:
        """How long an answer about so many rows may take before it is late."""
        percentile_s = self.percentile_95_s(num_rows)
        if percentile_s is not None:
            return min(config.hedge_factor * percentile_s, config.patience_limit_s)
        return max(config.hedge_unmeasured_s, 4 * self.expected_s(num_rows, num_rows * macs_per_row))

    def expected_s(self, num_rows: int, macs: int) -> float:
        """Expected latency of a chunk: the median seen, else round trip plus work at its stated speed."""
        samples = self.latencies_s.get(num_rows)
        if samples:
            return sorted(samples)[len(samples) // 2]
        return self.rtt_s + macs / max(self.macs_per_s, 1.0)
