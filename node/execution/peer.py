"""The state of a peer in one session: its role, its connection, its open requests, its speed, its status."""

from __future__ import annotations

import itertools
import math
import random
import secrets
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import ClassVar, Protocol

from msgspec import Struct, field

from node.execution.account import Account
from node.measures.peers import Exchange, PeerMeasures
from node.model.unit import UnitRef
from node.transport.channel import Channel
from protocol.discreet import Discreet
from protocol.identity import PeerId
from protocol.limits import SESSION_BYTES
from protocol.linear.field import Elements
from protocol.linear.messages import ChunkBinding, Role, UnitRequest

MAX_ABANDONED = 16
"""Most unanswered requests of a peer that are kept although their chunks were computed elsewhere."""
FEW_ROWS = 3
ALL_MEASURED = 64
SAMPLED = 5
"""Of requests of so few rows, after so many requests, every fifth is measured: no multiple of the four units of a
layer."""
LATE_LIMIT = 2
"""Late answers in a row after which a peer gets no new rows until it answers again."""
REST_FIRST_S = 0.05
REST_MAX_S = 5.0
"""First and longest time for which an overloaded peer gets no work; each is twice the previous one, with jitter."""


class PeerStatus(Enum):
    """Whether a peer gets work."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    BANNED = "banned"
    SHUT = "noisy"
    """Its connection was closed, because it sent too many unrequested messages."""
    DOUBTED = "doubted"
    """It and another device of the same owner computed different results; nothing here can tell which is wrong."""


class Owner(Protocol):
    """Waits for the answer to a request."""

    @property
    def subject(self) -> object:
        """The chunk or batch; requests of one subject are cancelled together."""

    def arrived(self, request: Request) -> bool:
        """An answer came and is not verified yet; returns whether its time counts."""

    def verified(self, request: Request, elements: Elements) -> None:
        """The answer was verified."""

    def failed(self, request: Request, same_peer_again: bool = False) -> None:
        """No answer to this request will come."""

    def cancelled(self, request: Request) -> None:
        """The request was cancelled."""


class Request(Discreet, Struct):
    """One message to a peer that the peer must answer."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("inputs", "message")
    id: int
    binding: ChunkBinding
    unit: UnitRef
    inputs: Elements
    """`[num_rows, K]`: the elements that the peer works on, for the check."""
    owner: Owner
    message: UnitRequest
    sent_at: float
    macs: int
    num_bytes: int
    """Size of the request and its answer."""
    abandoned: bool = False
    """Whether its chunk was computed elsewhere; the answer then only shows that the peer is alive."""


class SessionPeer(Discreet, Struct):
    """State of one peer in one role; only the session's thread uses it."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("session", "ids", "clock", "on_ban")
    peer_id: PeerId
    role: Role
    channel: Channel
    measures: PeerMeasures = field(default_factory=PeerMeasures)
    """What the node knows about its speed, from this session and all others."""
    model_id: bytes = b""
    session: bytes = field(default_factory=lambda: secrets.token_bytes(SESSION_BYTES))
    """The session id of its requests; each peer gets a different one, so that guards cannot match their records."""
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(secrets.randbits(62)))
    """Message ids, which begin at random. An attached peer's connection outlives a session, and a late answer from an
    earlier session must not look like an answer in this one."""
    status: PeerStatus = PeerStatus.ACTIVE
    in_flight: dict[int, Request] = field(default_factory=dict)
    chunks: int = 0
    rejected: int = 0
    late_in_a_row: int = 0
    leaving: bool = False
    """Whether it said goodbye, or was banned: requests already sent are still answered, new rows go elsewhere."""
    rest_s: float = 0.0
    """How long it got no work when it was last overloaded."""
    rests_until: float = 0.0
    lost_as: int = 0
    """Its connection was the n-th of the session that broke, when it broke last; 0: it never did."""
    heard_at: float = -math.inf
    """When its last answer was read."""
    heard_exactly: bool = True
    """Whether that was when it came."""
    account: Account = field(default_factory=Account)
    """The time that it has cost beyond its allowance."""
    clock: Callable[[], float] = time.monotonic
    on_ban: Callable[[], None] = lambda: None
    """Called when one of its results failed verification."""
    name: str = ""
    """Its name for people; empty if it has none."""

    @property
    def called(self) -> str:
        """What messages call it: its name, or the end of its PeerID."""
        return self.name or f"…{self.peer_id[-6:]}"

    @property
    def usable(self) -> bool:
        """Whether it may get requests now."""
        active = self.status is PeerStatus.ACTIVE and self.channel.connected
        return active and self.clock() >= max(self.rests_until, self.account.rests_until)

    @property
    def takes_rows(self) -> bool:
        """Whether rows of a new pass may rely on it."""
        return self.usable and not self.leaving

    @property
    def gone(self) -> bool:
        """Whether this node has closed its connection."""
        return self.status in (PeerStatus.BANNED, PeerStatus.SHUT, PeerStatus.DOUBTED)

    @property
    def standing(self) -> str:
        """Its status in one word, for receipts."""
        if self.gone:
            return self.status.value
        if self.leaving or not self.channel.connected:
            return "left" if self.leaving else "lost"
        return self.status.value if self.account.reason is None else self.account.reason.value

    def answered(self, request: Request, compute_us: int, now: float, was_waited_for: bool = True) -> None:
        """A result came; it counts for latency and speed and ends a suspension."""
        exchange = self.heard(request, compute_us, now, was_waited_for)
        if self.is_measured(request):
            self.measures.answered(self.model_id, exchange)

    def is_measured(self, request: Request) -> bool:
        """Whether the answer to a request is measured, whichever way it is read: of requests of few rows, which come
        one by one, the first ones, and then a fixed part."""
        return request.binding.num_rows > FEW_ROWS or self.chunks <= ALL_MEASURED or request.id % SAMPLED == 0

    def heard(self, request: Request, compute_us: int, now: float, was_waited_for: bool = True) -> Exchange:
        """The same without the measuring, which may be done later from what this returns.

        Args:
            compute_us: what the peer says that it computed.
            was_waited_for: whether it came while it was waited for; otherwise it may have come sooner.
        """
        ahead_s = max(self.heard_at - request.sent_at, 0.0)
        exchange = Exchange(
            request.binding.num_rows,
            request.macs,
            request.num_bytes,
            now - request.sent_at,
            compute_us / 1e6,
            ahead_s,
            was_waited_for and (self.heard_exactly or not ahead_s),
        )
        self.heard_at, self.heard_exactly = now, was_waited_for
        self.rest_s = 0.0
        self.resume()
        return exchange

    def exhausted(self, now: float) -> None:
        """It is overloaded: it gets no work for a while, longer each time in a row."""
        if now < self.rests_until:
            return  # an answer to an earlier request
        self.rest_s = min(2 * self.rest_s, REST_MAX_S) if self.rest_s else REST_FIRST_S
        self.rests_until = now + self.rest_s * (0.5 + random.random())

    def resume(self) -> None:
        """It is alive again: it sent an answer of any kind, or has a new connection without open requests."""
        self.late_in_a_row = 0
        if self.status is PeerStatus.SUSPENDED:
            self.status = PeerStatus.ACTIVE

    def was_late(self) -> None:
        """A chunk had to be computed locally because this peer did not answer in time."""
        self.late_in_a_row += 1
        if self.late_in_a_row >= LATE_LIMIT and self.status is PeerStatus.ACTIVE:
            self.status = PeerStatus.SUSPENDED

    def forget_abandoned(self) -> None:
        """Forget all but the latest requests of a peer that never answers; late answers to them are not its fault."""
        forgotten = [request.id for request in self.in_flight.values() if request.abandoned][:-MAX_ABANDONED]
        for request_id in forgotten:
            del self.in_flight[request_id]
        self.account.excused += len(forgotten)

    def ban(self) -> None:
        """A result of it failed verification: it gets no more work in this session."""
        self.status = PeerStatus.BANNED
        self.rejected += 1
        self.on_ban()

    def expected_s(self, num_rows: int, macs: int) -> float:
        """Expected latency of a chunk: the measured median, else round trip plus work at the speed known so far."""
        seen_s = self.measures.latency_s(self.model_id, num_rows)
        return self.measures.figures.exchange_s(num_rows, macs, 0) if seen_s is None else seen_s
