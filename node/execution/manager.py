"""`ExecutionManager`: sends chunks to peers, decides how long to wait for them, and handles failures.

It runs in the session's own thread and owns the session's channels, so there is no lock and no queue between an
answer and its use. Every result that it uses has passed the gate, in Python (`verify_result`) or in C (`direct`); if
anything fails, the chunk is computed here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from node.execution.answers import Answers
from node.execution.chunk import ChunkEvent, ChunkRecord, ChunkState
from node.execution.config import MAX_ATTEMPTS, ExecutionConfig
from node.execution.exchange import Exchanges
from node.execution.gate import ResultGate, UnitChecks, merge_results
from node.execution.interrupt import Interrupt
from node.execution.lane import Lane
from node.execution.ledger import ChunkCounts, Timings
from node.execution.mailbox import Mailbox
from node.execution.owed import abandon, cancel_requests
from node.execution.owners import PadOwner, ShareOwner
from node.execution.pads.batch import PadBatch, Ticket
from node.execution.pads.source import PadSource
from node.execution.patience import LocalSpeed, Patience
from node.execution.peer import Request, SessionPeer
from node.execution.recovery import NobodyLends, WeightLender
from node.execution.requests import fill_bucket, pad_request, send_chunk_to_peer, share_request
from node.execution.roster import Roster
from node.execution.unit_pass import UnitPass
from node.kernels.interface import Kernels
from node.model.unit import Unit
from node.planning.cut import Wave
from protocol.linear.field import Floats, Sums
from protocol.message import Cancel

log = logging.getLogger(__name__)


OnPad = Callable[[PadBatch, SessionPeer, ChunkState, float], None]
"""Arguments: the pads, their guard, their new state, and when they were sent."""


class ExecutionManager:
    """Plans, sends, waits, verifies and merges the chunks of one session."""

    def __init__(
        self,
        kernels: Kernels,
        model_id: bytes,
        checks: UnitChecks,
        local_macs_per_s: float,
        config: ExecutionConfig,
        recheck: Callable[[Unit], None],
        on_change: Callable[[ChunkRecord], None] = lambda record: None,
        interrupt: Interrupt | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = clock
        self.kernels = kernels
        self.model_id = model_id
        self.config = config
        self.patience = Patience(config, model_id, LocalSpeed(local_macs_per_s))
        self.gate = ResultGate(kernels, checks, recheck)
        self._on_change = on_change
        self._interrupt = interrupt
        self._mailbox = Mailbox()
        if interrupt is not None:
            self._mailbox.wake_by(interrupt.fd)
        self.roster = Roster()
        self.peers: list[SessionPeer] = []
        self.on_pad: OnPad = lambda batch, peer, state, sent_at: None
        """Called when a batch of pads was sent, verified, lost or cancelled."""
        self.counts = ChunkCounts()
        self.timings = Timings()
        self.answers = Answers(self._mailbox, self.gate, self.roster, self.counts, self.timings, clock)
        self.lender: WeightLender = NobodyLends()
        """Fetches weights that are not here."""
        self.on_trouble: Callable[[str], None] = lambda sentence: None
        """Called with the reason why a pass cannot go on."""
        self.look_around: Callable[[], None] = lambda: None
        """Called while a pass cannot go on; it adds lanes of peers that have joined."""
        self.exchanges = Exchanges(self)

    # --- set-up

    def add_peer(self, peer: SessionPeer) -> None:
        """Listen to a peer of this session."""
        peer.account.credit_s = self.config.credit_s
        peer.clock = self.now
        self.peers.append(peer)
        self._mailbox.add(peer)

    def add_lane(
        self, share_peer: SessionPeer, pads: PadSource, units: frozenset[bytes] | None = None, stands_in: bool = False
    ) -> None:
        """Add a lane, only for `units` if they are given; its peers must have been added before."""
        self.roster.add(Lane(len(self.lanes), share_peer, pads, units, stands_in=stands_in))

    def close(self) -> None:
        """Cancel all requests at the peers, and close the session's connections."""
        self.exchanges.keep_books()
        for peer in self.peers:
            if peer.usable:
                for request in peer.in_flight.values():
                    peer.channel.send(Cancel(request.id), request.id)
            peer.channel.close()

    @property
    def lanes(self) -> list[Lane]:
        """The lanes in the order in which they were added."""
        return self.roster.lanes

    # --- one forward pass

    def hear(self) -> None:
        """Read messages before a pass begins; raises PassCancelledError if it must not begin."""
        self.attend(0)
        self.check_wanted()

    def begin_step(self, num_rows: int, units: Sequence[Unit], most_waves: int = 1) -> Sequence[Wave]:
        """Decide for every row of a pass through lent units in which wave it goes, and in which lane it stays."""
        self.patience.begin_pass()
        waves = self.roster.cut(num_rows, units, most_waves)
        with self.timings.of("pads"):
            self.roster.prepare_pads(num_rows, units)
        return waves

    def plan(self, unit: Unit, wave: int = 0) -> UnitPass:
        """All chunks of one linear layer in a wave of this pass; they have no lane if none is usable."""
        left_s = self.patience.left_s
        return UnitPass(self.roster.plan(unit.ref, wave), lambda one, now: left_s(one, self.lane_of(one), now))

    # --- one chunk

    def dispatch(
        self,
        record: ChunkRecord,
        unit: Unit,
        rows: np.ndarray,
        floats: Floats | None = None,
        ticket: Ticket | None = None,
    ) -> None:
        """Make the share of a chunk and send it. The chunk stays PLANNED if its lane is not usable, or if this pass
        waits for nobody any more.

        Args:
            rows: `[num_rows, K]` int16, the chunk's own rows.
            floats: the values before quantization; a lane of a trusted device sends them.
            ticket: its pads, where they were taken before.
        """
        lane = None if record.lane is None else self.lanes[record.lane]
        if self.patience.used_up:
            self.exchanges.keep_books()
        if lane is not None and lane.usable and not self.patience.used_up:
            self._share(lane, record, unit, rows, floats, ticket)

    def move_to(self, lane: Lane, record: ChunkRecord, unit: Unit, rows: np.ndarray, floats: Floats | None) -> bool:
        """Give up on the peers of a chunk, and send it to those of another lane, with fresh pads."""
        if record.state in (ChunkState.SENT, ChunkState.VERIFIED):
            self.patience.gave_up(record, self.lane_of(record), self.now(), late=True)
            self._move(record, ChunkEvent.LOSE)
        abandon(self.peers, record)
        record.result = None
        sent = self._share(lane, record, unit, rows, floats)
        self.complete_pads(record)
        return sent

    def complete_pads(self, record: ChunkRecord) -> None:
        """Make what this device owes of the pads of a chunk that was sent, while its peer computes."""
        if record.ticket is not None and record.state is ChunkState.SENT:
            started = time.perf_counter()
            record.ticket.complete()
            self.timings.since("pads", started)

    def _share(
        self,
        lane: Lane,
        record: ChunkRecord,
        unit: Unit,
        rows: np.ndarray,
        floats: Floats | None,
        ticket: Ticket | None = None,
    ) -> bool:
        self.gate.expect(unit)
        record.ahead_s = self.patience.ahead_s(record, lane)
        started = time.perf_counter()
        record.ticket = lane.pads.take(unit, len(rows), record.chunk.num_sent) if ticket is None else ticket
        started = self.timings.since("pads", started)
        record.losses = self.roster.losses
        record.share = self.kernels.share(fill_bucket(rows, len(record.ticket.pads)), record.ticket.pads)
        self.timings.since("share", started)
        if lane.plain:
            assert floats is not None, "lanes that need floats get them"
            record.plain = fill_bucket(floats, len(record.ticket.pads))
        return self._send_share(record, lane)

    def _send_share(self, record: ChunkRecord, lane: Lane) -> bool:
        if record.attempts:  # another queue is before it now
            record.ahead_s = self.patience.ahead_s(record, lane)
        assert record.share is not None, "a chunk has its share before it is sent"
        request = share_request(lane.share_peer, self.model_id, self.owner_of(record), record.share)
        started = time.perf_counter()
        sent = send_chunk_to_peer(lane.share_peer, request, self.now())
        self.timings.since("send", started)
        if sent:
            self.sent(record, lane, request)
        return sent

    def owner_of(self, record: ChunkRecord) -> ShareOwner:
        """Who waits for the answer about a chunk."""
        return ShareOwner(record, self._move, self._resend)

    def sent(self, record: ChunkRecord, lane: Lane, request: Request) -> None:
        """The share of a chunk is on its way."""
        self.counts.sent += not record.attempts
        record.lane, record.peer_id, record.sent_at = lane.index, lane.share_peer.peer_id, request.sent_at
        record.attempts += 1
        self._move(record, ChunkEvent.SEND)

    def send_pad(self, guard: SessionPeer, unit: Unit, batch: PadBatch) -> bool:
        """Ask a guard of group A for the products of a batch of pads (`pads.SendPad`)."""
        self.gate.expect(unit)
        owner = PadOwner(batch, lambda request, state: self.on_pad(batch, guard, state, request.sent_at))
        request = pad_request(guard, self.model_id, owner)
        sent = send_chunk_to_peer(guard, request, self.now())
        if sent:
            request.inputs = batch.pads
            self.on_pad(batch, guard, ChunkState.SENT, request.sent_at)
        return sent

    def merge(self, record: ChunkRecord) -> Sums:
        """The exact rows of a ready chunk: `[num_rows, N]` int32."""
        started = time.perf_counter()
        share, pads = record.result, record.products
        assert share is not None and pads is not None, "both halves are here"
        rows = merge_results(share, pads, self.kernels)
        self.timings.since("merge", started)
        self.counts.verified += 1
        self.patience.served(record, self.lane_of(record), self.now())
        self._finish(record)
        return rows

    def settled(self, record: ChunkRecord) -> None:
        """The exact rows of a chunk that was sent are there, without `merge`."""
        self._move(record, ChunkEvent.ACCEPT)
        self.counts.verified += 1
        self._finish(record)

    def compute_locally(self, record: ChunkRecord, unit: Unit, rows: np.ndarray, late: bool = False) -> Sums:
        """The same exact rows, computed with this device's own weights."""
        if late:
            self.counts.hedged += 1
        if record.attempts:
            self.patience.gave_up(record, self.lane_of(record), self.now(), late)
        self._move(record, ChunkEvent.HEDGE if late else ChunkEvent.COMPUTE)
        abandon(self.peers, record)
        started = time.perf_counter()
        sums = self.kernels.linear_a12(unit.weights, rows)
        self.patience.local.computed(unit.ref, len(rows), self.timings.since("local", started) - started)
        self.counts.local += 1
        self._finish(record)
        return sums

    def _finish(self, record: ChunkRecord) -> None:
        self.counts.merged += 1
        self._move(record, ChunkEvent.MERGE)
        record.release()

    def _move(self, record: ChunkRecord, event: ChunkEvent) -> None:
        record.advance(event)
        self._on_change(record)

    def wait_for(self, record: ChunkRecord, timeout_s: float) -> None:
        """Wait for messages of peers and apply them; the time counts against the peers that still owe this chunk.

        If a wait takes longer than planned, the rest is this device's own fault: its processor was busy.
        """
        owing = self.patience.owing(record, self.lane_of(record))
        seconds = min(self.pump(timeout_s), max(timeout_s, 0.0))
        self.patience.waited(owing, seconds, self.now())

    def waited(self, peer: SessionPeer, seconds: float, timeout_s: float) -> None:
        """An answer of one peer alone was waited for, as `wait_for` does it."""
        self._mailbox.waited_s = seconds
        self.timings.add("wait", seconds)
        self.patience.waited([peer], min(seconds, timeout_s), self.now())

    @property
    def has_waited(self) -> bool:
        """Whether what the last wait found came during it."""
        return self._mailbox.has_waited

    @property
    def wakes(self) -> int:
        """A descriptor that ends a wait; -1 if there is none."""
        return -1 if self._interrupt is None else self._interrupt.fd

    def lane_of(self, record: ChunkRecord) -> Lane:
        """The lane of a chunk that has one."""
        assert record.lane is not None, "a chunk that was sent has a lane"
        return self.lanes[record.lane]

    # --- cancellation

    def check_wanted(self) -> None:
        """Raises PassCancelledError if this pass must end at once."""
        if self._interrupt is not None:
            self._interrupt.check()

    def cancel_chunk(self, record: ChunkRecord) -> None:
        """Cancel a chunk and tell its peers; an answer that still comes only counts for their measurements."""
        if record.state in (ChunkState.MERGED, ChunkState.CANCELLED):
            return
        batches = [] if record.ticket is None else [batch for batch, _start, _end in record.ticket.batches]
        spent = [batch for batch in batches if not batch.left]
        cancel_requests(self.peers, lambda subject: subject is record or any(subject is batch for batch in spent))
        self._move(record, ChunkEvent.CANCEL)
        record.release()

    def cancel_all(self) -> None:
        """Cancel every request, including requests for pads ahead of need."""
        cancel_requests(self.peers, lambda subject: True)

    # --- messages from peers

    def attend(self, timeout_s: float) -> None:
        """`pump`, and disconnect peers whose unread data exceeds what a session must hold."""
        self.pump(timeout_s)
        for peer in self.peers:
            if not peer.gone and peer.channel.is_overfull(sum(owed.num_bytes for owed in peer.in_flight.values())):
                self.answers.shut(peer)

    def pump(self, timeout_s: float) -> float:
        """Wait at most `timeout_s` for messages and apply them; returns how long it waited."""
        self.exchanges.keep_books()
        peers = self._mailbox.wait(timeout_s)
        waited_s = self._mailbox.waited_s
        self.timings.add("wait", waited_s)
        for peer in peers:
            self.answers.read(peer)
        return waited_s

    def _resend(self, record: ChunkRecord, same_peer_again: bool) -> None:
        """Send the same share once more if that is allowed, or give up on it."""
        if record.attempts < MAX_ATTEMPTS:
            ways = self.roster.for_retry(self.lane_of(record), record, same_peer_again)
            any(self._send_share(record, lane) for lane in ways)
