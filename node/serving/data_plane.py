"""The data plane of a node that serves: one blocking thread that reads requests, computes, answers.

It owns every socket it reads: the ROUTER that clients dial, and what `lent` holds.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

import zmq

from node.process.endurance import Endurance
from node.serving.at_once import AtOnce
from node.serving.attendance import Attendance
from node.serving.blobs import BlobService
from node.serving.breaks import Breaks
from node.serving.commands import Borrow, Command, Commands, Look, Offer
from node.serving.computing import Computing
from node.serving.disk_reader import FindBlob
from node.serving.inbox import Unopened
from node.serving.lending import Lending
from node.serving.lent import LentConnections
from node.serving.native_shares import native_shares
from node.serving.outbox import Outbox, send_or_wait
from node.serving.reception import Reception
from node.serving.relays import Relays
from node.serving.work_queue import Job, Path
from node.serving.worker import LinearWorker
from node.transport.callers import curve_key_of_frame
from node.transport.conduct import Conduct
from node.transport.farewells import PATIENCE_MS
from node.transport.line import Socket
from node.transport.poller import Descriptor, Poller
from node.transport.registry import PeerRegistry
from node.transport.sockets import (
    MAX_DATA_FRAME_BYTES,
    SecureContext,
    receive_frames,
    send_frames,
    send_to_route,
)
from protocol.codec import encode_message
from protocol.envelope import Frame
from protocol.identity import PeerId
from protocol.linear.quick import ShareHeader
from protocol.message import Message
from protocol.multiaddr import Multiaddr
from protocol.spans.messages import SpanResult

log = logging.getLogger(__name__)

MAX_MESSAGES_A_TURN = 64
READ_S = 0.0003
"""Messages are read for at most this long before a part is computed, so that a flood delays nobody's chunk."""
RETRY_S = 0.002
LOOK_S = 0.02
"""A node that leaves waits this long for more requests."""
DRAIN_LIMIT_S = 8.0
"""A node that leaves serves on for at most this long, whoever asks."""
STUCK_LIMIT_S = 2.0
"""A chunk in the kernels cannot be interrupted; leaving does not wait longer for it."""
FAREWELL_MS = 200
"""Time for the last answers to leave."""


class DataPlane:
    """Serves `worker` to whoever said hello. `start` binds, `stop` ends the thread.

    Args:
        find_blob: where blobs lie that others may fetch from here.
        is_paired: tells whose plain rows are accepted.
        on_fault: called in the data plane's thread with who is to be kept out, and why.
        lending: counts what is computed for others, and says whether it is.
    """

    def __init__(
        self,
        secure: SecureContext,
        registry: PeerRegistry,
        worker: LinearWorker,
        find_blob: FindBlob = lambda sha256: None,
        is_paired: Callable[[PeerId], bool] = lambda peer_id: False,
        on_fault: Callable[[PeerId, str], None] = lambda peer_id, reason: None,
        lending: Lending | None = None,
    ) -> None:
        self._secure = secure
        self._registry = registry
        self._commands = commands = Commands()
        self.blobs = BlobService(find_blob, lambda: commands.put(Look()))
        self._poller = Poller()
        self._lent = LentConnections(secure, self._poller)
        self._relays = Relays(secure, self._poller, registry.peer)
        self._outbox = Outbox()
        self._routes = secure.gate.routes()
        self._conduct = Conduct()
        self._lending = lending or Lending()
        self._computing = Computing(
            worker, self._outbox.is_full, self._is_shared, self._computed, self.blobs.wake, self._is_quiet
        )
        shares = native_shares(worker)
        self._reception = Reception(
            registry,
            self._computing,
            AtOnce(worker, self._is_shared, self._answered, shares),
            self.blobs,
            self._outbox,
            self._conduct,
            is_paired,
            on_fault,
            secure.gate.refuse,
            lambda: self._lending.refusal,
            worker.spans,
        )
        asked = self._reception, self._computing, self._conduct, self._lending, self._outbox
        self._attendance = Attendance(shares, *asked, self._routes, self._poller)
        self._turned_at = -math.inf
        """When the thread last made progress while it drains."""
        self._breaks = Breaks()
        self._router: Socket | None = None
        self._thread: threading.Thread | None = None
        self.on_end: Callable[[Exception], None] = lambda exc: None
        """Called, in the plane's thread, when it ends though nobody stopped it."""

    @property
    def queued(self) -> int:
        """Requests that wait for the worker and have not begun, and messages that are not opened."""
        return len(self._computing.work) + self._reception.waiting

    def start(self, listen: Multiaddr | None) -> int:
        """Bind where asked (any free port of that host) and start; returns the port, or 0 for none."""
        context = self._secure.context
        self._poller.register(self._commands.bell)
        port = 0
        if listen is not None:
            self._router = context.socket(zmq.ROUTER)
            port = self._secure.listen_beside(self._router, "data", listen, MAX_DATA_FRAME_BYTES)
            self._poller.register(self._router)
        self.blobs.start()
        self._computing.start()
        self._thread = threading.Thread(target=self._main, name="data plane", daemon=True)
        self._thread.start()
        return port

    def stop(self) -> bool:
        """Answer what waits, end the thread, close its sockets; False where it still computes (it ends with us)."""
        if self._thread is not None:
            self.blobs.stop()
            self._commands.put(None)
            if not self._ends():
                return False
            self._thread = None
            self._computing.stop()
        self._commands.close()
        return True

    def _ends(self) -> bool:
        """Wait for the thread while it drains; False where it is stuck in a chunk, or serves on for too long."""
        assert self._thread is not None, "started"
        started = time.monotonic()
        while (now := time.monotonic()) < started + DRAIN_LIMIT_S + STUCK_LIMIT_S:
            self._thread.join(max(0.01, min(max(started, self._turned_at) + STUCK_LIMIT_S - now, 0.1)))
            if not self._thread.is_alive():
                return True
            if time.monotonic() > max(started, self._turned_at) + STUCK_LIMIT_S:
                break
        return False

    def offer(self, peer_id: PeerId, host: str, port: int) -> None:
        """Serve `peer_id` over a connection that this node dials (from any thread)."""
        self._commands.put(Offer(peer_id, host, port))

    def borrow(self, peer_id: PeerId, endpoint: str) -> None:
        """Give the inproc pair connected to `endpoint` the connection of an attached peer (from any thread)."""
        self._commands.put(Borrow(peer_id, endpoint))

    # --- the thread

    def _main(self) -> None:
        endurance = Endurance("the data plane")
        try:
            while self._endured(endurance):
                pass
            self._drain()
        except zmq.ContextTerminated:
            return
        except Exception as exc:
            log.exception("the data plane ended")
            self.on_end(exc)
        finally:
            self._commands.close()
            linger_ms = 0 if self._outbox else FAREWELL_MS
            self._lent.close(linger_ms)
            self._relays.close(linger_ms)
            if self._router is not None:
                self._router.close(linger=PATIENCE_MS)  # the gate ends the connections sooner

    def _endured(self, endurance: Endurance) -> bool:
        """One turn, which may fail; returns False when it is time to end."""
        try:
            return self._turn()
        except zmq.ContextTerminated:
            raise
        except Exception as exc:
            time.sleep(endurance.failed(exc))
            return True

    def _turn(self) -> bool:
        """Read what is there, then open a message or compute one part; False when it is time to end."""
        self._outbox.send_again()
        self._relays.send_again()
        self._send_blobs()
        if not self._hear(self._timeout_s()):
            return False
        self._computing.collect()
        only = self._reception.only_path
        if only is not None and self._computing.is_idle and not self._outbox.is_full(only):
            self._breaks.look(True, time.monotonic())
            self._reception.open(only, at_once=True)
            self._attend(only)
            return True
        is_single = self._computing.work.has_single(self._outbox.is_full) or self._reception.has_single
        started = time.monotonic()
        self._breaks.look(is_single, started)
        if self._breaks.left_s(started) > 0:
            return True
        opened = self._open_next()
        if is_single or not opened:
            self._computing.step(self._breaks.part_s(started))
        if not is_single:
            now = time.monotonic()
            self._breaks.worked(now - started, now)
        return True

    def _attend(self, path: Path) -> None:
        """Go on with a peer whose message was the only one, as long as nothing else happens."""
        if self._router is None or not self._is_quiet():
            return
        visit = self._attendance.attend(self._router, path)
        if visit.num_answered:
            self._breaks.look(True, visit.last_at)
            self.blobs.computed()
        if visit.message is not None:
            self._handle_routed(bytes(visit.message[0].buffer), list(visit.message[1:]))

    def _open_next(self) -> bool:
        """Open a message, unless a peer with an opened request has used less time; returns whether one was opened."""
        path, work = self._reception.next_path(), self._computing.work
        if path is None or work.start_s(path[0]) > work.next_start_s(self._outbox.is_full):
            return False
        self._reception.open(path)
        return True

    def _hear(self, timeout_s: float | None) -> bool:
        """Read whatever comes in this time; False where this node is to end."""
        self._lent.repoll()
        self._relays.repoll()
        of_lines = False
        for one in self._poller.poll(timeout_s):
            if one is self._commands.bell:
                if not self._obeys(self._commands.take()):
                    return False
            elif isinstance(one, Descriptor):
                of_lines = True
            elif not one.closed:  # it may have been replaced by a command of this very turn
                self._read(one)
        if of_lines:
            self._lent.look(self._registry.is_heard)
            self._relays.look()
        return True

    @property
    def _is_ready(self) -> bool:
        """Whether there is something to do without another message."""
        if not self._computing.work.is_empty and self._computing.is_ready:
            return True
        return self._reception.waiting > 0 and self._reception.next_path() is not None

    def _timeout_s(self) -> float | None:
        """How long the thread may sleep; None until something comes."""
        if self._is_ready:
            return max(0.0, self._breaks.left_s(time.monotonic()))
        blobs_s = self.blobs.wait_s()
        if self._outbox or self._relays.has_unread:
            return RETRY_S if blobs_s is None else min(blobs_s, RETRY_S)
        return blobs_s

    def _send_blobs(self) -> None:
        reply = self.blobs.collect()
        frames = [] if reply is None else [reply.route, *encode_message(reply.message, reply.message_id)]
        if reply is not None and self._router is not None and not send_or_wait(self._router, frames):
            self.blobs.gone(reply.route)  # it gave credit and does not read: it may ask again

    def _drain(self) -> None:
        """Serve on until nobody asks any more: the others have heard the goodbye, and finish what they began.

        Whatever is left when the time is over, its clients compute themselves.
        """
        deadline = time.monotonic() + DRAIN_LIMIT_S
        while time.monotonic() < deadline:
            self._turned_at = time.monotonic()
            self._outbox.send_again()
            waits = not self._is_ready and (self._reception.is_asked or self._computing.busy_s is not None)
            self._hear(LOOK_S if waits else 0.0)
            self._computing.collect()
            self._open_next()
            self._computing.step()
            busy_s = self._computing.busy_s
            if busy_s is not None and busy_s < STUCK_LIMIT_S:
                continue
            if not self._reception.is_asked and not self._is_ready:
                return

    def _obeys(self, command: Command) -> bool:
        """Do what another thread asked for; False where this node is to end."""
        match command:
            case None:
                return False
            case Offer(peer_id, host, port):
                self._lent.offer(peer_id, host, port)
            case Borrow(peer_id, endpoint):
                self._lent.lend(peer_id, endpoint)
            case Look():
                pass
        return True

    def _read(self, socket: Socket) -> None:
        """Read for a little while."""
        lent = served = None
        if socket is not self._router:
            lent, served = self._lent.lent_of(socket), self._lent.offered_to(socket)
            if lent is None and served is None:
                self._relays.read(socket)
                return
        until = time.perf_counter() + READ_S
        for number in range(MAX_MESSAGES_A_TURN):
            frames = receive_frames(socket, expected=number == 0)
            if frames is None:
                break
            if socket is self._router:
                self._handle_routed(bytes(frames[0].buffer), frames[1:])
            elif lent is not None:
                self._forward_to_peer(lent, frames)
            elif served is not None and self._registry.is_heard(served):
                self._reception.take(served, socket, None, frames)
            else:  # its link has ended, or it was banned: this connection outlives both
                self._reception.take_of_nobody(socket, None, frames)
            if time.perf_counter() > until:
                break

    def _handle_routed(self, route: bytes, frames: list[zmq.Frame]) -> None:
        if not frames or self._router is None or self._routes.took(route, frames) is None:
            return
        peer = self._registry.by_curve_key(curve_key_of_frame(frames[-1]))
        if peer is None:
            self._reception.take_of_nobody(self._router, route, frames)
            return
        borrower = self._lent.borrower_of(peer.peer_id)
        if borrower is not None and self._registry.route_of(peer.peer_id) == route:
            send_frames(borrower, frames)
            return
        self._reception.take(peer.peer_id, self._router, route, frames)

    def _forward_to_peer(self, peer_id: PeerId, frames: list[zmq.Frame]) -> None:
        """Send over the newest connection over which a peer serves; where that has ended, over the one before it."""
        while self._router is not None and (route := self._registry.route_of(peer_id)) is not None:
            if send_to_route(self._router, route, frames) or not self._registry.detach(peer_id, route):
                return

    def _computed(self, job: Job, answer: Message) -> None:
        """Answer now, or as soon as the peer has read what it got before."""
        self.blobs.computed()
        answer = self._relays.finished(job.request, answer)
        frames = encode_message(answer, job.request_id)
        num_bytes = job.num_bytes + sum(map(len, frames))
        if isinstance(answer, SpanResult) and answer.passed:
            num_bytes += answer.rows.nbytes
        self._outbox.send(job.peer_id, job.socket, job.route, frames)
        self._lending.count(job.peer_id, job.request.model_id, job.request.num_rows, num_bytes)

    def _answered(self, message: Unopened, share: ShareHeader, frames: list[Frame]) -> None:
        """The same for a share that was no job."""
        self._outbox.send(message.peer_id, message.socket, message.route, frames)
        self.blobs.computed()
        num_rows, num_bytes = share.rest.shape[0], len(message.frames[1]) + sum(map(len, frames))
        self._lending.count(message.peer_id, share.rest.model_id, num_rows, num_bytes)

    def _is_quiet(self) -> bool:
        """Whether nothing is to be sent while something is computed."""
        return not self._outbox and not self._relays.has_unread and self.blobs.is_idle()

    def _is_shared(self, peer_id: PeerId) -> bool:
        """Whether others than this peer ask, too."""
        return self._conduct.is_shared(peer_id, time.monotonic())
