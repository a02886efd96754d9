"""Exchanges of few rows that go one after the other, each settled in one C call (`direct`).

While a peer computes, the next request is prepared: its pads are taken, its header is written, and what the last
answer said about its peer is noted. So between an answer and the next request there is nothing but that call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from msgspec import Struct

from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.direct import Ahead, AheadOutcome, Outcome, can_settle, direct_answers
from node.execution.lane import Lane
from node.execution.pads.batch import Ticket
from node.execution.patience import Service
from node.execution.peer import Request
from node.execution.requests import share_request, was_sent
from node.measures.peers import Exchange
from node.model.linear import Continuation, WentOn
from node.model.unit import Unit
from protocol.discreet import Discreet
from protocol.envelope import Frame
from protocol.limits import FREIVALDS_VECTORS
from protocol.linear.field import Elements, Sums
from protocol.linear.quick import header_of_share

if TYPE_CHECKING:
    from node.execution.manager import ExecutionManager

DIRECT_S = 0.05
"""A wait for one answer alone takes at most so long; then all peers are listened to."""


class Prepared(Discreet, Struct, frozen=True):
    """A chunk that will be sent next: all but its rows."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("ticket", "request", "share", "header")
    record: ChunkRecord
    lane: Lane
    ticket: Ticket
    request: Request
    header: Frame
    """First frame of the request."""
    share: Elements
    """`[num_rows, K]`, not computed yet."""


class Exchanges:
    """Used by the session's thread alone."""

    def __init__(self, manager: ExecutionManager) -> None:
        self._manager = manager
        self._direct = direct_answers(manager.kernels)
        self._unbooked: list[tuple[Lane, Exchange | None, Service]] = []
        """Of answers of which nothing was noted yet."""

    def owed(self, record: ChunkRecord) -> Request | None:
        """The request of a chunk that was sent, if nothing else is owed by its peer, and its pads are there: then
        `settle` may be called."""
        if self._direct is None or record.state is not ChunkState.SENT:
            return None
        lane, products = self._manager.lane_of(record), record.products
        peer = lane.share_peer
        request = next(iter(peer.in_flight.values())) if len(peer.in_flight) == 1 else None
        if request is None or request.owner.subject is not record or products is None or lane.plain:
            return None
        return request if peer.channel.socket is not None and can_settle(request, products) else None

    def prepare(self, record: ChunkRecord, unit: Unit) -> Prepared | None:
        """Take the pads of a chunk of which nothing else is there; None where it must go the usual way."""
        self.keep_books()
        manager, chunk = self._manager, record.chunk
        lane = None if record.lane is None else manager.lanes[record.lane]
        if lane is None or lane.plain or not lane.usable or manager.patience.used_up:
            return None
        if not 0 < chunk.num_rows == chunk.num_sent <= FREIVALDS_VECTORS:
            return None
        manager.gate.expect(unit)
        started = time.perf_counter()
        record.losses = manager.roster.losses
        ticket = lane.pads.take(unit, chunk.num_rows, chunk.num_sent)
        ticket.complete()
        manager.timings.since("pads", started)
        share = np.empty(ticket.pads.shape, np.uint32)
        request = share_request(lane.share_peer, manager.model_id, manager.owner_of(record), share)
        header = header_of_share(request.binding, request.id, unit.ref.num_inputs)
        return Prepared(record, lane, ticket, request, header, share)

    def is_good(self, prepared: Prepared) -> bool:
        """Whether a chunk that was prepared may be sent now: its lane is usable, its guard has not refused its pads,
        and no connection has broken since they were taken, after which another copy of this device might use them."""
        is_ours = prepared.record.losses == self._manager.roster.losses
        return is_ours and prepared.lane.usable and not prepared.ticket.failed

    def settle(
        self, record: ChunkRecord, request: Request, then: Continuation | None, prepared: Prepared | None
    ) -> Sums | WentOn | None:
        """The exact rows of a chunk that is `owed`, if its answer is the next thing that happens. None: what happened
        was applied, and the chunk's state says how to go on.

        Args:
            then: how the rows go on with them.
            prepared: what is sent then, in the same call; None: nothing, and they do not go on.
        """
        manager, direct, products = self._manager, self._direct, record.products
        assert direct is not None and products is not None, "as `owed` has found"
        lane = manager.lane_of(record)
        peer = lane.share_peer
        self.keep_books()
        timeout_s = min(manager.patience.surely_left_s(record, manager.now()), DIRECT_S)
        if timeout_s <= 0:
            return None
        ahead = None
        if then is not None and prepared is not None and self.is_good(prepared):
            channel, pads = prepared.lane.share_peer.channel, prepared.ticket.pads
            ahead = Ahead(channel, prepared.header, then.passage, then.rows, pads, prepared.share)
        check = manager.gate.checks.known(request.unit)
        began = manager.now()
        outcome = direct.wait(peer.channel, request, check, products, manager.wakes, timeout_s, ahead)
        manager.waited(peer, outcome.waited_s, timeout_s)
        heard_at = began + outcome.waited_s + outcome.verify_s + outcome.merge_s
        if outcome.sums is not None:
            self._settled(record, lane, request, outcome, heard_at)
        elif outcome.frames is not None:
            manager.answers.read(peer, outcome.frames)
        if outcome.ahead is None or prepared is None:
            return outcome.sums
        self._went_on(prepared, outcome.ahead, heard_at)
        return outcome.ahead.went_on

    def _settled(self, record: ChunkRecord, lane: Lane, request: Request, outcome: Outcome, heard_at: float) -> None:
        """
        Args:
            heard_at: when the rows were there. What this device did with them since is not its peer's time.
        """
        manager, peer = self._manager, lane.share_peer
        manager.answers.settled(peer, request, outcome, heard_at)
        exchange = peer.heard(request, outcome.compute_us, heard_at, manager.has_waited)
        measured = exchange if peer.is_measured(request) else None
        self._unbooked.append((lane, measured, Service.of(record, heard_at)))
        manager.settled(record)

    def _went_on(self, prepared: Prepared, ahead: AheadOutcome, heard_at: float) -> None:
        """The layers have gone on from `heard_at`; and what was prepared was sent, unless libzmq did not take it, or
        they came to something else."""
        manager, record, request = self._manager, prepared.record, prepared.request
        manager.timings.add("share", ahead.share_s)
        manager.timings.add("send", ahead.send_s)
        if ahead.is_shared:
            record.ticket, record.share = prepared.ticket, prepared.share
        if ahead.is_sent:
            request.sent_at = heard_at + ahead.layers_s + ahead.share_s + ahead.send_s
            was_sent(prepared.lane.share_peer, request)
            prepared.lane.share_peer.channel.gave(len(prepared.header) + prepared.share.nbytes)
            manager.sent(record, prepared.lane, request)

    def keep_books(self) -> None:
        """Note what answers say about their peers: not when they come, but when the next request is on its way."""
        manager = self._manager
        for lane, exchange, service in self._unbooked:
            if exchange is not None:
                lane.share_peer.measures.answered(manager.model_id, exchange)
            manager.patience.pay(service, lane)
        self._unbooked.clear()
