"""Attends to a peer that asks alone: as long as nothing else happens, C answers its shares.

What follows an answer is the same as for a share that is answered at once, for all of a visit together.
"""

from __future__ import annotations

import time

import zmq

from node.serving.computing import Computing
from node.serving.lending import Lending
from node.serving.native_shares import NativeShares, Visit
from node.serving.outbox import Outbox
from node.serving.reception import Reception
from node.serving.work_queue import Path
from node.serving.worker import SHORT_S
from node.transport.callers import Routes
from node.transport.conduct import Conduct
from node.transport.poller import Poller
from protocol.identity import PeerId

FRAMES_OF_SHARE = 2
MOST_SKIPPED = 63
"""Most chances to attend that are let pass after visits in which nothing was answered: where two connections of a
peer ask in turn, or a peer is far away, each would only cost time."""


class Attendance:
    """Used by the data plane's thread.

    Args:
        shares: None: C answers nothing here.
        poller: what this thread listens to.
    """

    def __init__(
        self,
        shares: NativeShares | None,
        reception: Reception,
        computing: Computing,
        conduct: Conduct,
        lending: Lending,
        outbox: Outbox,
        routes: Routes,
        poller: Poller,
    ) -> None:
        self._shares, self._reception, self._computing = shares, reception, computing
        self._conduct, self._lending, self._outbox, self._routes = conduct, lending, outbox, routes
        self._poller = poller
        self._skips = self._skipped = 0
        """How many chances are still let pass, and how many were at last."""

    def attend(self, router: zmq.Socket[bytes], path: Path) -> Visit:
        """Answer what this connection asks for, until it is quiet or something else happens; a message of it was just
        opened."""
        peer_id, route = path
        if self._shares is None or not self._shares.is_asked or route is None or not self._may_attend(peer_id):
            return Visit()
        if self._skips:
            self._skips -= 1
            return Visit()
        listened = self._poller.quiet_others(router)
        if listened is None:
            return Visit()
        started = time.thread_time()
        visit = self._shares.serve(router, route, listened)
        seconds = time.thread_time() - started
        self._computing.work.charge(peer_id, seconds, seconds <= SHORT_S * max(1, visit.num_answered))
        if visit.num_answered:
            self._account(peer_id, route, visit)
            self._skipped = 0
        elif not visit.is_news:
            self._skipped = min(2 * self._skipped + 1, MOST_SKIPPED)
        self._skips = self._skipped
        if visit.unsent is not None:
            self._outbox.send(peer_id, router, route, list(visit.unsent))
        return visit

    def _may_attend(self, peer_id: PeerId) -> bool:
        if self._conduct.is_shared(peer_id, time.monotonic()) or self._lending.refusal is not None:
            return False
        return self._computing.is_idle and self._reception.is_done_with(peer_id)

    def _account(self, peer_id: PeerId, route: bytes, visit: Visit) -> None:
        self._routes.read(route, visit.num_received, FRAMES_OF_SHARE * visit.num_answered)
        self._conduct.opened(peer_id, visit.last_at)
        self._reception.asked_at = visit.last_at
        self._computing.work.serve_only(peer_id)
        num_bytes = visit.num_received + visit.num_sent
        self._lending.count(peer_id, visit.model_id, visit.num_rows, num_bytes, visit.num_answered)
