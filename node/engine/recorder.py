"""Records what happens in a pass, for the receipts of its requests and for watchers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from node.engine.chunks import ChunkFeed
from node.engine.ledger import Snapshot, snapshot
from node.engine.running import Running
from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.pads.batch import PadBatch
from node.execution.peer import SessionPeer
from node.session.receipt import role_name
from node.session.session import Session
from protocol.identity import PeerId

REPORT_S = 1.0
"""A request whose prompt takes long hears so often how far it is."""
Share = tuple[Running, int]
"""A request and its rows in a pass."""


class PassRecorder:
    """Records passes; used only by the thread of one runner."""

    def __init__(self, feed: ChunkFeed) -> None:
        self._feed = feed
        self._session: Session | None = None
        self._chosen: Sequence[Share] = ()
        self._saw_chunks = False
        self._in_pass = False
        self._went_through = 0
        """Rows times layers that the pass has behind it."""
        self._told_at = 0.0

    def follow(self, session: Session) -> None:
        """From now on, passes belong to this session."""
        self._session = session
        session.watch_pads(self._on_pad)
        session.executor.went_through = self._on_layer
        if session.chain is not None:
            session.chain.went_through = self._on_layer

    @contextmanager
    def watching(self, chosen: Sequence[Share]) -> Iterator[None]:
        """Count what the pass in the block does, whether it finishes or is stopped."""
        self._chosen, self._saw_chunks = chosen, False
        self._in_pass, self._went_through, self._told_at = True, 0, time.monotonic()
        before = self._snapshot()
        try:
            yield
        finally:
            self._in_pass = False  # a correction of an answer computes outside
            self._account(before)

    def on_change(self, record: ChunkRecord) -> None:
        """A chunk changed its state: it counts for every request with rows in it."""
        self._saw_chunks = True
        start, first = 0, True
        for running, count in self._chosen:
            stop = start + count
            if start < record.chunk.row_end and record.chunk.row_start < stop:
                running.ledger.saw(record)
                if first:
                    self._feed.push(record, running.request.id, self._role_of(record.peer_id))
                    first = False
            start = stop

    def _on_layer(self, num_rows: int) -> None:
        """Rows have gone through one more layer: of a pass that takes long, its requests hear how far they are."""
        self._went_through += num_rows
        now = time.monotonic()
        if not self._in_pass or now - self._told_at < REPORT_S or self._session is None:
            return
        self._told_at = now
        whole = sum(count for _running, count in self._chosen) * self._session.decoder.config.num_layers
        part = min(self._went_through / whole, 1.0)  # own devices' layers may be computed here twice
        for running, count in self._chosen:
            running.tell_progress(int(count * part))

    def _on_pad(self, batch: PadBatch, peer: SessionPeer, state: ChunkState, sent_at: float) -> None:
        """Pads of a guard changed their state; they count for the first request of the pass."""
        request_id = self._chosen[0][0].request.id if self._chosen else ""
        self._feed.push_pad(batch, peer, state, sent_at, request_id)

    def _role_of(self, peer_id: PeerId | None) -> str | None:
        """The role of a peer in the session."""
        if peer_id is None or self._session is None or not self._feed.watched:
            return None
        role = next((peer.role for peer in self._session.peers if peer.peer_id == peer_id), None)
        return None if role is None else role_name(role)

    def _snapshot(self) -> Snapshot:
        session = self._session
        assert session is not None, "a pass belongs to a session"
        executor, pads = session.executor, (session.pads_made, session.pads_paired)
        return snapshot(executor.counts, session.peers, pads, executor.timings.seconds)

    def _account(self, before: Snapshot) -> None:
        after, num_rows = self._snapshot(), sum(count for _running, count in self._chosen)
        for running, count in self._chosen:
            running.alone = running.alone and len(self._chosen) == 1
            running.ledger.took_part(before, after, count / num_rows, not self._saw_chunks)
