"""What the data plane does with a message of a peer: an answer at once, or a request that waits for its turn.

The time for each message is charged to its sender.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import zmq

from node.serving.at_once import AtOnce
from node.serving.blobs import BlobService
from node.serving.computing import Computing
from node.serving.inbox import Inbox, Unopened
from node.serving.outbox import Outbox
from node.serving.spans import Client, SpanCaches
from node.serving.work_queue import SINGLE_REQUESTS, Job, Path, Route
from node.serving.worker import SHORT_S
from node.transport.callers import curve_key_of_frame
from node.transport.conduct import REFUSED_S, Conduct
from node.transport.log_limit import LogLimit
from node.transport.registry import PeerRegistry
from node.transport.sockets import send_frames
from protocol.codec import UnknownMessageError, decode_message, encode_message
from protocol.envelope import KEY_ID, decode_header
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.link.messages import Attach, Pong
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping
from protocol.spans.messages import SpanClose, SpanOpen, SpanPass, SpanStep
from protocol.transfer.messages import BlobAsk, Credit, PieceAsk
from protocol.work import WorkRequest

log = logging.getLogger(__name__)

ASKED_S = 0.5
"""After this long without a request, sessions that heard the goodbye of a node have finished their passes."""
SMALL_BYTES = 64
"""A message of so few bytes asks for no work: it is a cancellation, or credit, and is opened at once."""


def _no_room(job: Job) -> bool:
    return False


class Reception:
    """Opens messages, in the data plane's thread.

    Args:
        is_paired: tells whose plain rows are accepted.
        on_fault: called with who is to be kept out, and why.
        on_nobodys_fault: called with the CURVE key of somebody without a hello who is to be kept out for a while.
        refusal: why nothing is computed for others now; None if it is.
        spans: keeps the caches of spans; None: none are computed here.
    """

    def __init__(
        self,
        registry: PeerRegistry,
        computing: Computing,
        at_once: AtOnce,
        blobs: BlobService,
        outbox: Outbox,
        conduct: Conduct,
        is_paired: Callable[[PeerId], bool],
        on_fault: Callable[[PeerId, str], None],
        on_nobodys_fault: Callable[[bytes], None],
        refusal: Callable[[], str | None],
        spans: SpanCaches | None = None,
    ) -> None:
        self._registry, self._computing, self._blobs = registry, computing, blobs
        self._at_once = at_once
        self._work = computing.work
        self._outbox, self._conduct = outbox, conduct
        self._is_paired, self._refusal, self._spans = is_paired, refusal, spans
        self._on_fault, self._on_nobodys_fault = on_fault, on_nobodys_fault
        self._nobodies = Conduct()
        """Of keys without a hello: which rules they broke. The time that they use is counted for all together."""
        self._inbox = Inbox()
        self._work.unopened = self._inbox.count_of
        self._complaints = LogLimit(log)
        self._news = LogLimit(log)
        self.asked_at = -math.inf
        """When somebody last asked this node to compute."""

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked so lately that he may ask again."""
        return time.monotonic() - self.asked_at <= ASKED_S

    @property
    def waiting(self) -> int:
        """Messages that have come and are not opened."""
        return len(self._inbox)

    def next_path(self) -> Path | None:
        """The connection whose next message to open: no request of it waits, and its peer has used the least time."""
        return min(filter(self._may_open, self._inbox.paths), key=self._start_s, default=None)

    def _may_open(self, path: Path) -> bool:
        return not self._work.waits_on(path) and not self._outbox.is_full(path)

    def _start_s(self, path: Path) -> float:
        return self._work.start_s(path[0])

    @property
    def has_single(self) -> bool:
        """Whether a message may be opened of somebody who asks for one thing at a time."""
        return any(
            self._inbox.count_of(path[0]) <= SINGLE_REQUESTS and self._work.is_idle(path[0]) and self._may_open(path)
            for path in self._inbox.paths
        )

    def take(self, peer_id: PeerId, socket: Any, route: Route, frames: list[zmq.Frame]) -> None:
        """A message has come: one that asks for work waits for its turn."""
        message = Unopened(peer_id, socket, route, frames, sum(map(len, frames)))
        is_large, now = message.num_bytes > SMALL_BYTES, time.monotonic()
        if is_large and self._inbox.push(message):
            self._conduct.sent(peer_id, now)
            return
        if not self._conduct.may_send(peer_id, now):
            self._judge(peer_id, self._conduct.flooded(peer_id, now), "messages beyond its part of the time")
            return
        started = time.thread_time()
        job = self._open(message, _no_room if is_large else self._computing.push)
        seconds = time.thread_time() - started
        self._conduct.spent(peer_id, seconds, time.monotonic())
        self._charge(message, job, seconds)

    def take_of_nobody(self, socket: Any, route: Route, frames: list[zmq.Frame]) -> None:
        """A message has come whose sender's hello has not been heard, or this node was restarted since."""
        now = time.monotonic()
        curve_key = b"" if route is None else curve_key_of_frame(frames[-1])  # of a peer that this node dialled: none
        if not self._conduct.may_send(None, now):
            if curve_key and self._nobodies.flooded(curve_key, now):
                self._on_nobodys_fault(curve_key)
            return
        started = time.thread_time()
        try:
            message_id = decode_header(frames[0].buffer, MAX_DATA_HEADER_BYTES)[KEY_ID]
        except RemoteProtocolError:
            if curve_key and self._nobodies.malformed(curve_key, now):
                self._on_nobodys_fault(curve_key)
        else:
            refusal = ErrorReply(ErrorCode.NO_SESSION, "say hello first")
            send_frames(socket, [*([] if route is None else [route]), *encode_message(refusal, message_id)])
        self._conduct.spent(None, time.thread_time() - started, time.monotonic())

    def is_done_with(self, peer_id: PeerId) -> bool:
        """Whether no message waits, nor a cancellation of one of this peer."""
        return not self.waiting and not self._inbox.has_cancelled(peer_id)

    @property
    def only_path(self) -> Path | None:
        """The connection of the only message that waits; None where none or several wait."""
        return self._inbox.only_path

    def open(self, path: Path, at_once: bool = False) -> None:
        """Open the next message of a connection.

        Args:
            at_once: nothing else waits, so that a request is computed now, unless it takes long.
        """
        message, started = self._inbox.take(path), time.thread_time()
        expected_s = self._answered_at_once(message) if at_once else None
        if expected_s is not None:
            self._work.serve_only(message.peer_id)
            self._work.charge(message.peer_id, time.thread_time() - started, expected_s <= SHORT_S)
            return
        take = self._computing.answer if at_once else self._computing.push
        job = None if message.socket.closed else self._open(message, take)
        self._inbox.settle(message.peer_id)
        self._charge(message, job, time.thread_time() - started)

    def _answered_at_once(self, message: Unopened) -> float | None:
        """How long a message was expected to take that was answered without becoming a job; None where it was not."""
        if message.socket.closed or self._inbox.has_cancelled(message.peer_id) or self._refusal() is not None:
            return None
        expected_s = self._at_once.answer(message)
        if expected_s is not None:
            self.asked_at = time.monotonic()
            self._conduct.opened(message.peer_id, self.asked_at)
        return expected_s

    def _charge(self, message: Unopened, job: Job | None, seconds: float) -> None:
        if job is not None and not job.answered:
            job.owed_s = seconds
        else:
            is_single = job is not None and job.is_single
            self._work.charge(message.peer_id if job is None else job.peer_id, seconds, is_single)

    def _open(self, message: Unopened, take: Callable[[Job], bool]) -> Job | None:
        """Do what a message says; returns the request, where it was one that waits now or was answered at once.

        Args:
            take: adds or answers a request; returns whether there was room.
        """
        peer_id, route, frames = message.peer_id, message.route, message.frames
        try:
            received = decode_message([frame.buffer for frame in frames], MAX_DATA_HEADER_BYTES)
        except UnknownMessageError as exc:
            self._answer(message, ErrorReply(ErrorCode.UNIMPLEMENTED, str(exc)), exc.message_id)
            self._judge(peer_id, self._conduct.unknown(peer_id, time.monotonic()), "messages of unknown types")
            return None
        except RemoteProtocolError as exc:
            self._complaints.warning("a data frame of %s was dropped: %s", peer_id, exc)
            self._answer(message, ErrorReply(ErrorCode.INVALID, str(exc)), 0)
            self._judge(peer_id, self._conduct.malformed(peer_id, time.monotonic()), "messages against the format")
            return None
        if not isinstance(received.message, SpanPass):
            self._conduct.opened(peer_id, time.monotonic())
        match received.message:
            case SpanPass() as request:
                return self._take_pass(message, request, take)
            case WorkRequest() as request if request.FOR_PAIRED and not self._is_paired(peer_id):
                denied = ErrorReply(ErrorCode.DENIED, "plain rows are taken from paired devices alone")
                self._answer(message, denied, received.id)
            case SpanStep() as step if self._spans is not None and not self._spans.admit(_client_of(message), step):
                self._answer(message, ErrorReply(ErrorCode.NO_CACHE, "the cache is not here"), received.id)
            case WorkRequest() if (why := self._refusal()) is not None:
                self._answer(
                    message, ErrorReply(ErrorCode.UNAVAILABLE, f"this device lends nothing: {why}"), received.id
                )
            case WorkRequest() as request:
                self.asked_at = time.monotonic()
                if self._inbox.was_cancelled(peer_id, received.id):
                    return None
                return self._take(Job(peer_id, received.id, request, message.socket, route), take)
            case SpanOpen() as request:
                self._answer(message, self._open_span(message, request), received.id)
            case SpanClose(cache) if self._spans is not None:
                self._spans.close(peer_id, cache)
            case Ping():
                self._answer(message, Pong(len(self._work)), received.id)
            case Cancel(request_id):
                self._work.cancel(peer_id, request_id)
                self._inbox.cancel(peer_id, request_id)
                if self._spans is not None:
                    self._spans.cancel(peer_id, request_id)
                if route is not None:
                    self._blobs.cancel(route, request_id)
            case BlobAsk() | PieceAsk() | Credit() if route is not None:
                refusal = self._blobs.handle(peer_id, route, received.id, received.message)
                if refusal is not None:
                    self._answer(message, refusal, received.id)
            case Attach() if route is not None:
                self._registry.attach(curve_key_of_frame(frames[-1]), route)
                self._news.info("peer %s serves over the connection it dialled", peer_id)
            case _:
                pass
        return None

    def _take(self, job: Job, take: Callable[[Job], bool]) -> Job | None:
        """The job if there was room for it."""
        if take(job):
            return job
        self._conduct.spent(job.peer_id, REFUSED_S, time.monotonic())
        self._reply(job, ErrorReply(ErrorCode.EXHAUSTED, "too many requests wait here"))
        return None

    def _take_pass(self, message: Unopened, step: SpanPass, take: Callable[[Job], bool]) -> Job | None:
        """A device hands its result on: from here on it is a step of the client that sealed it. What cannot be
        computed is not answered where no client is known, who then sends the rows himself. Whoever hands rows on
        cannot tell whether they are sealed rightly: nobody is blamed."""
        client = None if self._spans is None else self._spans.client_of(message.peer_id, step)
        if client is None or client.socket.closed or not self._is_paired(client.peer_id):
            self._conduct.spent(message.peer_id, REFUSED_S, time.monotonic())
            return None
        self._conduct.brought(message.peer_id, client.peer_id, time.monotonic())
        job = Job(client.peer_id, step.binding.nonce, step, client.socket, client.route)
        if (why := self._refusal()) is not None:
            self._reply(job, ErrorReply(ErrorCode.UNAVAILABLE, f"this device lends nothing: {why}"))
            return None
        self.asked_at = time.monotonic()
        return self._take(job, self._computing.push if self._outbox.is_full(job.path) else take)

    def _open_span(self, message: Unopened, request: SpanOpen) -> Message:
        peer_id = message.peer_id
        if not self._is_paired(peer_id):
            return ErrorReply(ErrorCode.DENIED, "spans are computed for paired devices alone")
        if self._spans is None:
            return ErrorReply(ErrorCode.UNIMPLEMENTED, "this device computes no spans")
        if (why := self._refusal()) is not None:
            return ErrorReply(ErrorCode.UNAVAILABLE, f"this device lends nothing: {why}")
        return self._spans.open(_client_of(message), request)

    def _judge(self, peer_id: PeerId, is_guilty: bool, what: str) -> None:
        """A rule was broken; keep out whoever breaks rules again and again."""
        if is_guilty:
            self._work.forget(peer_id)
            self._inbox.forget(peer_id)
            if self._spans is not None:
                self._spans.forget(peer_id)
            self._on_fault(peer_id, f"it sent too many {what}")

    def _reply(self, job: Job, answer: Message) -> None:
        """Answer a request that is not computed."""
        self._outbox.send(job.peer_id, job.socket, job.route, encode_message(answer, job.request_id))

    def _answer(self, message: Unopened, answer: Message, message_id: int) -> None:
        """Answer now, or as soon as the peer has read what it got before."""
        self._outbox.send(message.peer_id, message.socket, message.route, encode_message(answer, message_id))


def _client_of(message: Unopened) -> Client:
    return Client(message.peer_id, message.socket, message.route)
