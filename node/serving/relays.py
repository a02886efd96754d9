"""Hands results of spans on to the devices that compute the next layers, over lines that this node dials to them.

A client names these devices; it gets every result itself, too. So nothing here has to arrive: a result says whether
it was sent on, and where it was not, or got lost, the client sends it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from node.serving.dialled import DialledLines
from node.serving.outbox import Outbox
from node.transport.line import Line, Socket
from node.transport.poller import Poller
from node.transport.registry import ConnectedPeer
from node.transport.sockets import SecureContext, receive_frames
from protocol.codec import encode_message
from protocol.identity import PeerId
from protocol.message import Message
from protocol.spans.messages import SpanPass, SpanResult, SpanStep
from protocol.work import WorkRequest

log = logging.getLogger(__name__)

MAX_LINES = 16
"""Most devices that results are handed on to; the line that was dialled first is dropped for another."""
MAX_ANSWERS = 64
"""A device that says so much, though nothing is asked of it, is not dialled again for a while."""
SHUN_S = 60.0


class Relays:
    """Used by the data plane's thread alone.

    Args:
        find: a connected peer, by its PeerID.
    """

    def __init__(
        self,
        secure: SecureContext,
        poller: Poller,
        find: Callable[[PeerId], ConnectedPeer | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = DialledLines(secure, poller)
        self._unread = Outbox()
        self._find, self._clock = find, clock
        self._endpoints: dict[PeerId, tuple[str, int]] = {}
        self._answers: dict[PeerId, int] = {}
        self._shunned: dict[PeerId, float] = {}
        """Until when a device is not dialled."""

    @property
    def num_lines(self) -> int:
        """Devices that are dialled."""
        return len(self._lines)

    @property
    def has_unread(self) -> bool:
        """Whether a device has not read all yet."""
        return bool(self._unread)

    def send_again(self) -> None:
        """Try what waits once more, and notice what was read."""
        self._unread.send_again()

    def repoll(self) -> None:
        """Poll the sockets of lines that were made again; before every poll."""
        self._lines.repoll()

    def finished(self, request: WorkRequest, answer: Message) -> Message:
        """The answer for the client of a request that was computed: the result of a step has been handed on if the
        client wants that, and says so."""
        if not isinstance(request, SpanStep) or not isinstance(answer, SpanResult):
            return answer
        return replace(answer, passed=self._hand_on(request, answer)) if request.onward else answer

    def read(self, socket: Socket) -> None:
        """Read what a device says, which means nothing: what it has to say, it says to the client. Nothing happens
        where the socket is not that of a line."""
        peer_id = self._lines.peer_of(socket)
        while peer_id is not None and receive_frames(socket) is not None:
            self._answers[peer_id] = self._answers.get(peer_id, 0) + 1
            if self._answers[peer_id] > MAX_ANSWERS:
                log.warning("%s says too much over a line that hands rows on to it: it is closed", peer_id)
                self._shunned = {one: until for one, until in self._shunned.items() if until > self._clock()}
                self._shunned[peer_id] = self._clock() + SHUN_S
                self._drop(peer_id)
                break

    def look(self) -> None:
        """Look at every line; give up those whose device has left."""
        for peer_id, line, news in self._lines.look():
            if news.up:
                self._answers[peer_id] = 0
            elif not line.connected and self._find(peer_id) is None:
                self._drop(peer_id)

    def close(self, linger_ms: int) -> None:
        """Close all lines; rows on their way have this long to leave."""
        self._lines.close(linger_ms)

    def _hand_on(self, step: SpanStep, result: SpanResult) -> bool:
        """Whether the result was sent to the next device."""
        first, *rest = step.onward
        try:
            line = self._line(first.peer_id)
        except OSError as exc:
            log.warning("%s is not dialled: %s", first.peer_id, exc.strerror)
            return False
        if line is None or not line.connected or line.socket is None or self._unread.is_full((first.peer_id, None)):
            return False
        message = SpanPass(first.binding, result.rows, tuple(rest), first.seal)
        self._unread.send(first.peer_id, line.socket, None, encode_message(message, first.binding.nonce))
        return True

    def _line(self, peer_id: PeerId) -> Line | None:
        """The line to a device, dialled where there is none; None where it cannot be dialled."""
        peer, line = self._find(peer_id), self._lines.of(peer_id)
        if peer is None or not peer.hello.data_port or self._clock() < self._shunned.get(peer_id, 0.0):
            return None
        if line is not None and line.connected:
            return line
        endpoint = peer.host, peer.hello.data_port
        if line is None or self._endpoints[peer_id] != endpoint:
            if line is None and len(self._lines) >= MAX_LINES:
                self._drop(next(iter(self._lines)))
            self._lines.dial(peer_id, *endpoint)
            self._endpoints[peer_id] = endpoint
            self._answers[peer_id] = 0
        return self._lines.of(peer_id)

    def _drop(self, peer_id: PeerId) -> None:
        self._lines.drop(peer_id)
        self._endpoints.pop(peer_id, None)
        self._answers.pop(peer_id, None)
