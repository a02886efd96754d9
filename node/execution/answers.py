"""What messages of peers mean: results, refusals, broken rules, and connections that have ended.

Every result passes the gate here, but for those that `direct` has let in. Whatever does not answer a request counts
against its sender.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from node.execution.config import NOT_AGAIN
from node.execution.direct import Outcome
from node.execution.gate import ResultGate
from node.execution.ledger import ChunkCounts, Timings
from node.execution.mailbox import Mailbox
from node.execution.owners import ShareOwner
from node.execution.peer import PeerStatus, Request, SessionPeer
from node.execution.roster import Roster
from node.transport.log_limit import LogLimit
from protocol.codec import Received
from protocol.envelope import Frame
from protocol.errors import RemoteProtocolError
from protocol.linear.messages import WorkResult
from protocol.message import ErrorCode, ErrorReply

log = logging.getLogger(__name__)

FRAMES_OF_RESULT = 2
"""A header, and the rows."""


class Answers:
    """Reads what peers send, and applies it. Used by the session's thread alone.

    Args:
        counts: what is rejected and lost is added.
        clock: tells the time of a message.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        gate: ResultGate,
        roster: Roster,
        counts: ChunkCounts,
        timings: Timings,
        clock: Callable[[], float],
    ) -> None:
        self._mailbox, self._gate, self._roster = mailbox, gate, roster
        self._counts, self._timings, self._now = counts, timings, clock
        self._news = LogLimit(log)

    def read(self, peer: SessionPeer, first: Sequence[Frame] | None = None) -> None:
        """Read the messages of a peer; any that does not answer a request counts against the peer.

        Args:
            first: the frames of one that was taken from its socket.
        """
        bytes_before, heard = peer.channel.bytes_down, False
        try:
            for received in self._mailbox.read(peer, first):
                heard = True
                was_owed = self._heard(peer, received)
                if not was_owed:
                    self._unasked(peer)
                if peer.gone:
                    return
                if was_owed and not peer.in_flight:
                    break  # it owes nothing more
        except RemoteProtocolError as exc:
            log.warning("a result of %s cannot be read and counts as a lie: %s", peer.peer_id, exc)
            self._ban(peer)
            return
        if self._mailbox.has_news(peer) and peer.channel.notice_losses():
            self._lost(peer)
        elif not heard and peer.channel.bytes_down > bytes_before:
            self._unasked(peer)

    def _heard(self, peer: SessionPeer, received: Received) -> bool:
        """Whether a message is the answer to a request."""
        answer = received.message
        if not isinstance(answer, WorkResult | ErrorReply):
            return False
        request = peer.in_flight.pop(received.id, None)
        if request is None:
            return False
        if isinstance(answer, ErrorReply):
            self._news.info("peer %s answered with error %d: %s", peer.peer_id, answer.code, answer.text)
            self._refused(peer, request, answer.code)
        else:
            self._result(peer, request, answer)
        return True

    def _unasked(self, peer: SessionPeer) -> None:
        peer.account.heard_unasked(self._now())
        if peer.account.floods:
            self.shut(peer)

    def shut(self, peer: SessionPeer) -> None:
        log.warning("%s sends unrequested messages: its connection is closed for this session", peer.peer_id)
        peer.status = PeerStatus.SHUT
        self._hang_up(peer)

    def _refused(self, peer: SessionPeer, request: Request, code: int) -> None:
        """It answered, so it is alive; whether it may be asked again depends on the error code."""
        peer.resume()
        if code == ErrorCode.EXHAUSTED:
            peer.exhausted(self._now())
        elif code == ErrorCode.NOT_FOUND:
            self._roster.lacks(peer, request.unit)
        elif not request.abandoned:
            peer.account.failed(self._now())
        request.owner.failed(request, same_peer_again=code not in NOT_AGAIN)

    def _result(self, peer: SessionPeer, request: Request, result: WorkResult) -> None:
        now = self._now()
        peer.answered(request, result.compute_us, now, self._mailbox.has_waited)
        self._arrived(request, result.compute_us, now)
        started = time.perf_counter()
        genuine = self._gate.lets_in(request, result)
        self._timings.since("verify", started)
        if genuine:
            request.owner.verified(request, result.elements)
        else:
            log.warning("a result of %s failed verification: it is banned for this session", peer.peer_id)
            self._ban(peer, request)

    def _arrived(self, request: Request, compute_us: int, now: float) -> None:
        if request.owner.arrived(request):
            self._timings.add("peers", min(compute_us / 1e6, now - request.sent_at))  # what was waited for

    def settled(self, peer: SessionPeer, request: Request, outcome: Outcome, now: float) -> None:
        """The only answer that a peer owed came and was right; its rows were merged at `now`."""
        peer.in_flight.clear()
        peer.channel.took(outcome.num_bytes, FRAMES_OF_RESULT)
        self._arrived(request, outcome.compute_us, now)
        self._timings.add("verify", outcome.verify_s)
        self._timings.add("merge", outcome.merge_s)

    def _ban(self, peer: SessionPeer, culprit: Request | None = None) -> None:
        peer.ban()
        self._counts.rejected += 1
        self._hang_up(peer, culprit)

    def _hang_up(self, peer: SessionPeer, culprit: Request | None = None) -> None:
        self._mailbox.remove(peer)
        peer.channel.close()
        self._give_up(peer, [*([] if culprit is None else [culprit]), *peer.in_flight.values()])

    def _lost(self, peer: SessionPeer) -> None:
        log.info("the connection to %s broke with %d requests in flight", peer.peer_id, len(peer.in_flight))
        owed = list(peer.in_flight.values())
        self._roster.lost(peer)
        peer.resume()
        if owed:
            peer.account.failed(self._now())
        self._counts.lost += sum(isinstance(one.owner, ShareOwner) and not one.abandoned for one in owed)
        self._give_up(peer, owed)

    def _give_up(self, peer: SessionPeer, owed: Sequence[Request]) -> None:
        """Give up on these requests: the peer will not answer them."""
        peer.in_flight.clear()
        for request in owed:
            request.owner.failed(request)
