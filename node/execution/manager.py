"""`ExecutionManager`: which chunk goes to whom, until when it is waited for, and what happens when it fails.

It runs in the session's own thread and owns the session's channels: no lock, no queue between an answer and its use.
Every number that it lets through has passed `verify_result`; whatever else happens, a chunk ends up computed here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from node.execution.chunk import ChunkEvent, ChunkRecord, ChunkState
from node.execution.config import ExecutionConfig
from node.execution.gate import UnitChecks, verify_result
from node.execution.interrupt import Interrupt
from node.execution.lane import Lane
from node.execution.ledger import ChunkCounts, Timings
from node.execution.mailbox import Mailbox
from node.execution.merge import merge_results
from node.execution.pads import DECODE_BATCH_ROWS, PadBatch, PadSource
from node.execution.peer import PeerStatus, Request, SessionPeer
from node.execution.requests import pad_request, share_request
from node.execution.roster import Roster
from node.execution.send import send_chunk_to_peer
from node.kernels.interface import Kernels
from node.store.unit import Unit
from protocol.errors import RemoteProtocolError
from protocol.field import Floats, Sums
from protocol.messages import Cancel, ErrorCode, ErrorReply, LinearResult, Received, TrustedResult

log = logging.getLogger(__name__)

MAX_ABANDONED = 16
"""Unanswered requests of a peer, computed otherwise meanwhile, that are kept with their shares."""
MAX_ATTEMPTS = 2
"""A share is sent at most twice; after one failed retry its rows are computed locally."""
NOT_AGAIN = (ErrorCode.EXHAUSTED, ErrorCode.NOT_FOUND, ErrorCode.DENIED)
"""Errors that the same question would bring again."""


OnPad = Callable[[PadBatch, SessionPeer, ChunkState, float], None]
"""Pads, their guard, what became of them, and when they were sent."""


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
    ) -> None:
        self._kernels = kernels
        self._model_id = model_id
        self._checks = checks
        self._local_macs_per_s = local_macs_per_s
        self._config = config
        self._recheck = recheck
        self._on_change = on_change
        self._interrupt = interrupt
        self._mailbox = Mailbox()
        if interrupt is not None:
            self._mailbox.wake_by(interrupt.fd)
        self._units: dict[bytes, Unit] = {}
        self._roster = Roster()
        self.before_step: Callable[[], None] = lambda: None
        """Called before the rows of a pass are cut: the moment for lanes to be added and goodbyes to be heard."""
        self.peers: list[SessionPeer] = []
        self.on_pad: OnPad = lambda batch, peer, state, sent_at: None
        """Called when a batch of pads was sent, verified, lost or cancelled."""
        self.counts = ChunkCounts()
        self.timings = Timings()

    # --- set-up

    def add_peer(self, peer: SessionPeer) -> None:
        """Listen to a peer of this session."""
        self.peers.append(peer)
        self._mailbox.add(peer)

    def add_lane(self, share_peer: SessionPeer, pads: PadSource, units: frozenset[bytes] | None = None) -> None:
        """Add a lane, for these units alone where some are named; its peers were added before."""
        self._roster.add(Lane(len(self.lanes), share_peer, pads, units))

    def close(self) -> None:
        """Tell the peers that nothing is wanted any more, and close the session's connections."""
        for peer in self.peers:
            if peer.usable:
                for request in peer.in_flight.values():
                    peer.channel.send(Cancel(request.id), request.id)
            peer.channel.close()

    @property
    def lanes(self) -> list[Lane]:
        """In the order in which they were added."""
        return self._roster.lanes

    @property
    def plain(self) -> bool:
        """Whether rows leave as they are, to devices that may read them."""
        return bool(self.lanes) and self.lanes[0].plain

    # --- one forward pass

    def begin_step(self, start: int, num_rows: int, units: Sequence[Unit]) -> None:
        """Read the news, then decide for every row of this pass in which lane it stays."""
        self.pump(0)
        self.check_wanted()
        self.before_step()
        self._roster.cut(num_rows, units)
        if num_rows <= DECODE_BATCH_ROWS:
            with self.timings.of("pads"):
                for lane in self.lanes:
                    chosen = self._roster.units_of(lane, units)
                    if chosen:
                        lane.pads.prepare(chosen, num_rows)

    def plan(self, unit: Unit, num_rows: int) -> list[ChunkRecord]:
        """Records of all chunks of one linear layer in this pass; no lane where none is alive."""
        return self._roster.plan(unit.ref, num_rows)

    # --- one chunk

    def dispatch(self, record: ChunkRecord, unit: Unit, rows: np.ndarray, floats: Floats | None = None) -> None:
        """Make the share of a chunk and send it; it stays PLANNED where its lane is not alive.

        Args:
            rows: `[num_rows, K]` int16, the chunk's own rows.
            floats: what they were quantized from; a lane of a trusted device sends it.
        """
        lane = None if record.lane is None else self.lanes[record.lane]
        if lane is None or not lane.usable:
            return
        self._units[unit.ref.sha256] = unit
        with self.timings.of("pads"):
            record.ticket = lane.pads.take(unit, len(rows))
        with self.timings.of("share"):
            record.share = self._kernels.share(_fill(rows, len(record.ticket.pads)), record.ticket.pads)
        if lane.plain:
            assert floats is not None, "who wants floats is given them"
            record.plain = _fill(floats, len(record.ticket.pads))
        if self._send_share(record, lane):
            self.counts.sent += 1

    def _send_share(self, record: ChunkRecord, lane: Lane) -> bool:
        request = share_request(lane.share_peer, self._model_id, record)
        with self.timings.of("send"):
            sent = send_chunk_to_peer(lane.share_peer, request)
        if sent:
            record.lane, record.peer_id, record.sent_at = lane.index, lane.share_peer.peer_id, request.sent_at
            record.attempts += 1
            self._move(record, ChunkEvent.SEND)
        return sent

    def send_pad(self, guard: SessionPeer, unit: Unit, batch: PadBatch) -> bool:
        """Ask a guard of group A for the products of a batch of pads (`pads.SendPad`)."""
        self._units[unit.ref.sha256] = unit
        request = pad_request(guard, self._model_id, batch)
        sent = send_chunk_to_peer(guard, request)
        if sent:
            self.on_pad(batch, guard, ChunkState.SENT, request.sent_at)
        return sent

    def ready(self, record: ChunkRecord) -> bool:
        """Whether both halves of a chunk are here and verified."""
        return record.state is ChunkState.VERIFIED and record.ticket.products() is not None

    def merge(self, record: ChunkRecord) -> Sums:
        """The exact rows of a chunk that is ready: `[num_rows, N]` int32."""
        with self.timings.of("merge"):
            rows = merge_results(record.result, record.ticket.products(), self._kernels)  # type: ignore[arg-type]
        self.counts.verified += 1
        self._finish(record)
        return rows

    def compute_locally(self, record: ChunkRecord, unit: Unit, rows: np.ndarray, late: bool = False) -> Sums:
        """The same exact rows from this device's own weights."""
        if late:
            self._note_lateness(record)
            self.counts.hedged += 1
        self._move(record, ChunkEvent.HEDGE if late else ChunkEvent.COMPUTE)
        self._abandon(record)
        with self.timings.of("local"):
            sums = self._kernels.linear_a12(unit.weights, rows)
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

    def late_at(self, record: ChunkRecord) -> float:
        """When a chunk is late (monotonic seconds): max(3 x p95, predicted local time), 30 s at most."""
        config, lane, ref = self._config, self._lane(record), record.chunk.unit
        macs = ref.num_inputs * ref.num_outputs
        limit_s = max(config.hedge_floor_s, record.chunk.num_rows * macs / self._local_macs_per_s)
        if record.result is None and record.share is not None:
            limit_s = max(limit_s, lane.share_peer.patience_s(len(record.share), macs, config))
        if lane.guard is not None and record.ticket.products() is None:
            limit_s = max(limit_s, lane.guard.patience_s(record.ticket.batch_rows, macs, config))
        return record.sent_at + min(limit_s, config.progress_limit_s)

    def _lane(self, record: ChunkRecord) -> Lane:
        assert record.lane is not None, "a chunk that was sent has a lane"
        return self.lanes[record.lane]

    def _note_lateness(self, record: ChunkRecord) -> None:
        lane = self._lane(record)
        if record.result is None:
            lane.share_peer.was_late()
        if lane.guard is not None and record.ticket.products() is None:
            lane.guard.was_late()

    def _abandon(self, record: ChunkRecord) -> None:
        """Its answer is only news now. Of peers that never answer, only the latest such requests are remembered."""
        for peer in self.peers:
            for request in peer.in_flight.values():
                if request.owner is record:
                    request.abandoned = True
            self._forget(peer)

    @staticmethod
    def _forget(peer: SessionPeer) -> None:
        forgotten = [request.id for request in peer.in_flight.values() if request.abandoned][:-MAX_ABANDONED]
        for request_id in forgotten:
            del peer.in_flight[request_id]

    # --- an end before the end

    def check_wanted(self) -> None:
        """Raises PassCancelledError where this pass is to end at once."""
        if self._interrupt is not None:
            self._interrupt.check()

    def cancel_chunk(self, record: ChunkRecord) -> None:
        """Nobody wants a chunk any more: its peers are told, whatever comes of it is only news of them."""
        if record.state in (ChunkState.MERGED, ChunkState.CANCELLED):
            return
        batches = [] if record.ticket is None else [batch for batch, _start, _end in record.ticket.batches]
        spent = [batch for batch in batches if not batch.left]
        self._call_off(lambda owner: owner is record or any(owner is batch for batch in spent))
        self._move(record, ChunkEvent.CANCEL)
        record.release()

    def cancel_all(self) -> None:
        """Nobody wants anything any more, the pads made ahead included."""
        self._call_off(lambda owner: True)

    def _call_off(self, concerned: Callable[[object], bool]) -> None:
        for peer in self.peers:
            for request in [request for request in peer.in_flight.values() if concerned(request.owner)]:
                if not request.abandoned and not peer.channel.closed:
                    peer.channel.send(Cancel(request.id), request.id)
                if isinstance(request.owner, PadBatch):
                    request.owner.failed = True
                    self.on_pad(request.owner, peer, ChunkState.CANCELLED, request.sent_at)
                request.abandoned = True
            self._forget(peer)

    # --- news from peers

    def pump(self, timeout_s: float) -> None:
        """Wait at most so long for news and apply all there is."""
        with self.timings.of("wait"):
            peers = self._mailbox.wait(timeout_s)
        for peer in peers:
            self._read(peer)

    def _read(self, peer: SessionPeer) -> None:
        try:
            for received in self._mailbox.read(peer):
                self._heard(peer, received)
                if peer.status is PeerStatus.BANNED:
                    return
        except RemoteProtocolError as exc:
            log.warning("a result of %s cannot be read and counts as a lie: %s", peer.peer_id, exc)
            self._ban(peer)
            return
        if peer.channel.notice_losses():
            self._lost(peer)

    def _heard(self, peer: SessionPeer, received: Received) -> None:
        match received.message:
            case LinearResult() | TrustedResult() as result:
                request = peer.in_flight.pop(received.id, None)
                if request is not None:
                    self._result(peer, request, result)
            case ErrorReply(code, text):
                log.info("peer %s answered with error %d: %s", peer.peer_id, code, text)
                request = peer.in_flight.pop(received.id, None)
                if request is not None:
                    self._refused(peer, request, code)
            case _:
                pass

    def _refused(self, peer: SessionPeer, request: Request, code: int) -> None:
        """It answers, so it is there; whether to ask it again depends on what it says."""
        peer.resume()
        if code == ErrorCode.EXHAUSTED:
            peer.exhausted(time.monotonic())
        elif code == ErrorCode.NOT_FOUND:
            self._roster.lacks(peer, request.unit)
        self._failed(request, same_peer_again=code not in NOT_AGAIN)

    def _result(self, peer: SessionPeer, request: Request, result: LinearResult | TrustedResult) -> None:
        peer.answered(request, result, time.monotonic())
        record = request.owner if isinstance(request.owner, ChunkRecord) and not request.abandoned else None
        if record is not None:
            self._move(record, ChunkEvent.RECEIVE)
            self.timings.add("peers' kernels", result.compute_us / 1e6)
        with self.timings.of("verify"):
            genuine = self._genuine(request, result)
        if not genuine:
            log.warning("a result of %s failed verification: it is banned for this session", peer.peer_id)
            self._ban(peer, request)
        elif record is not None:
            record.result = result.elements[: record.chunk.num_rows]
            self._move(record, ChunkEvent.ACCEPT)
        elif isinstance(request.owner, PadBatch):
            request.owner.products = result.elements
            self.on_pad(request.owner, peer, ChunkState.VERIFIED, request.sent_at)

    def _genuine(self, request: Request, result: LinearResult | TrustedResult) -> bool:
        """The gate; a refusal is confirmed with a fresh check on re-hashed weights: our memory may be at fault."""
        if verify_result(request, result, self._checks.known(request.unit), self._kernels):
            return True
        unit = self._units[request.unit.sha256]
        self._recheck(unit)
        return verify_result(request, result, self._checks.renew(unit), self._kernels)

    def _ban(self, peer: SessionPeer, culprit: Request | None = None) -> None:
        peer.ban()
        self.counts.rejected += 1
        self._mailbox.remove(peer)
        peer.channel.close()
        owed = [culprit] if culprit is not None else []
        owed += peer.in_flight.values()
        peer.in_flight.clear()
        for request in owed:
            self._failed(request)
            self._pad_lost(peer, request)

    def _lost(self, peer: SessionPeer) -> None:
        log.info("the connection to %s broke with %d requests in flight", peer.peer_id, len(peer.in_flight))
        owed = list(peer.in_flight.values())
        peer.in_flight.clear()
        peer.resume()
        self.counts.lost += sum(isinstance(request.owner, ChunkRecord) and not request.abandoned for request in owed)
        for request in owed:
            self._failed(request)
            self._pad_lost(peer, request)

    def _pad_lost(self, peer: SessionPeer, request: Request) -> None:
        if isinstance(request.owner, PadBatch):
            self.on_pad(request.owner, peer, ChunkState.LOST, request.sent_at)

    def _failed(self, request: Request, same_peer_again: bool = False) -> None:
        """A request will not be answered: send the same share once more where that is allowed, or give up on it."""
        if isinstance(request.owner, PadBatch):
            request.owner.failed = True
            return
        record: ChunkRecord = request.owner
        if request.abandoned or record.state not in (ChunkState.SENT, ChunkState.RECEIVED):
            return
        self._move(record, ChunkEvent.REFUSE if record.state is ChunkState.RECEIVED else ChunkEvent.LOSE)
        if record.attempts < MAX_ATTEMPTS:
            ways = self._roster.for_retry(self._lane(record), record.chunk.unit, same_peer_again)
            any(self._send_share(record, lane) for lane in ways)


def _fill(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Rows of a chunk, with zero rows up to its bucket."""
    if len(rows) == num_rows:
        return rows
    filled = np.zeros((num_rows, rows.shape[1]), dtype=rows.dtype)
    filled[: len(rows)] = rows
    return filled
