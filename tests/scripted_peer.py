"""Twins of the seams: peers that play a script over sockets inside this process.

A scripted peer is a real `LinearWorker` behind a real pair of sockets and the real codec; only what it makes of an
answer is written down. Nothing here has a thread or sleeps: a peer acts while it is being sent a message.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import zmq
from made_parts import KERNELS, weights_of
from msgspec.structs import replace

from node.execution.peer import PeerStatus, SessionPeer
from node.measures.peers import PeerMeasures
from node.model.unit import Unit
from node.serving.worker import LinearWorker
from node.transport.poller import Descriptor, Pollable
from protocol.codec import Received, decode_message, encode_message
from protocol.envelope import Frame
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.field import P
from protocol.linear.messages import Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.linear.verification import result_digest
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping

_names = itertools.count(1)
LONG_MS = 5000


class ScriptedChannel:
    """Twin of `node.transport.channel.Channel`; whoever plays the peer is called with every message sent."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], peer_id: PeerId, connected: bool = True) -> None:
        self.peer_id = peer_id
        self.connected = connected
        self.bytes_up = 0
        self.bytes_down = 0
        self.near, self._far = _pair(context)
        self._news, self._news_far = _pair(context)
        self._bell = Descriptor(int(self._news.get(zmq.FD)))
        self.on_send: Callable[[list[bytes], Received], None] = lambda frames, received: None
        self.floods = False
        self.full = False
        self.sent: list[list[bytes]] = []
        self.closed = False
        self.generation = 0

    # What the session sees.

    @property
    def socket(self) -> zmq.Socket[bytes]:
        return self.near

    @property
    def pollables(self) -> list[Pollable]:
        return [self.near, self._bell]

    def is_overfull(self, owed_bytes: int) -> bool:
        return False

    def send(self, message: Message, message_id: int) -> bool:
        assert not self.closed, "a message to somebody who was hung up on"
        if self.full:
            return False
        frames = [bytes(frame) for frame in encode_message(message, message_id)]
        self.sent.append(frames)
        self.bytes_up += sum(map(len, frames))
        self.on_send(frames, decode_message(frames, MAX_DATA_HEADER_BYTES))
        return True

    def receive(self, expected: bool = False) -> Received | None:
        if self.floods:
            return Received(1 << 60, Ping())
        try:
            frames = self.near.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        return self.open(frames)

    def open(self, frames: Sequence[Frame]) -> Received:
        if self.floods:
            self.flood()  # one message was taken
            return Received(1 << 60, Ping())
        self.took(sum(map(len, frames)), len(frames))
        return decode_message(frames, MAX_DATA_HEADER_BYTES)

    def took(self, size: int, num_frames: int) -> None:
        self.bytes_down += size

    def gave(self, size: int) -> None:
        """A message went over the socket past `send`."""
        frames = self._far.recv_multipart(zmq.DONTWAIT)
        self.sent.append(frames)
        self.bytes_up += size
        self.on_send(frames, decode_message(frames, MAX_DATA_HEADER_BYTES))

    def notice_losses(self) -> int:
        losses = 0
        while self._news.poll(0):
            self.connected = self._news.recv() == b"up"
            losses += not self.connected
        return losses

    def wait_connected(self, timeout_s: float) -> bool:
        return self.connected

    def close(self) -> None:
        self.closed = True
        for socket in (self.near, self._far, self._news, self._news_far):
            socket.close(linger=0)

    # What the script does.

    def answer(self, message: Message, message_id: int) -> None:
        self.answer_frames(encode_message(message, message_id))

    def answer_frames(self, frames: Sequence[Frame]) -> None:
        self._far.send_multipart(frames)

    def lose(self) -> None:
        """The connection breaks; the session learns of it when it looks."""
        self._news_far.send(b"lost")

    def stop_taking(self) -> None:
        """Its end of the socket takes no more messages, and says nothing."""
        self.full = True
        self._far.close(linger=LONG_MS)
        while self.near.get(zmq.EVENTS) & zmq.POLLOUT:  # libzmq closes it in a thread of its own
            pass

    def restore(self) -> None:
        self._news_far.send(b"up")

    def flood(self) -> None:
        """From now on there is always one more message."""
        self.floods = True
        self._far.send(b"there is something to read")


def _pair(context: zmq.Context[zmq.Socket[bytes]]) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    endpoint = f"inproc://fake-{next(_names)}"
    near.bind(endpoint)
    far.connect(endpoint)
    return near, far


# --- scripts

Lie = Callable[[Linear, LinearResult, "ScriptedPeer"], LinearResult]


def _relabelled(request: Linear, rows: np.ndarray) -> LinearResult:
    """A lie with a correct digest of itself."""
    return LinearResult(result_digest(request.binding, rows), 1, rows)


def _plus(amount: int) -> Lie:
    def lie(request: Linear, honest: LinearResult, peer: ScriptedPeer) -> LinearResult:
        rows = honest.rows.copy()
        rows[-1, -1] = (int(rows[-1, -1]) + amount) % P
        return _relabelled(request, rows)

    return lie


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> Lie:
    return lambda request, honest, peer: _relabelled(request, np.ascontiguousarray(change(honest.rows)))


def _residue(rows: np.ndarray) -> np.ndarray:
    changed = rows.copy()
    changed[0, 0] += np.uint32(P)
    return changed


def _replayed(request: Linear, honest: LinearResult, peer: ScriptedPeer) -> LinearResult:
    """The first answer of this shape again, word for word."""
    earlier = (old for old in peer.answered if old is not honest and old.rows.shape == honest.rows.shape)
    return next(earlier, replace(honest, digest=bytes(32)))


LIES: dict[str, Lie] = {
    "one more": _plus(1),
    "one less": _plus(-1),
    "not canonical": _changed(_residue),
    "zeroed row": _changed(lambda rows: np.concatenate([np.zeros_like(rows[:1]), rows[1:]])),
    "turned": _changed(lambda rows: np.roll(rows, 1)),
    "noise": _changed(lambda rows: np.random.default_rng(3).integers(0, P, rows.shape, dtype=np.uint32)),
    "a row missing": _changed(lambda rows: rows[1:]),
    "a row more": _changed(lambda rows: np.concatenate([rows, rows[:1]])),
    "a column missing": _changed(lambda rows: rows[:, 1:]),
    "replay": _replayed,
    "wrong digest": lambda request, honest, peer: replace(honest, digest=bytes(32)),
    "the share itself": lambda request, honest, peer: _relabelled(
        request, np.zeros_like(honest.rows) if request.rows is None else np.ascontiguousarray(request.rows)
    ),
}

Script = Callable[["ScriptedPeer", int, Linear], None]


def honest(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    peer.channel.answer(peer.compute(request), message_id)


def silent(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    pass


def one_behind(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    """Answers a request when the next one comes."""
    peer.held.append((message_id, request))
    while len(peer.held) > 1:
        honest(peer, *peer.held.pop(0))


def newest_first(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    """Collects two requests, then answers them in the other order."""
    peer.held.append((message_id, request))
    if len(peer.held) > 1:
        while peer.held:
            honest(peer, *peer.held.pop())


def every_other(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    if peer.requests % 2:
        honest(peer, message_id, request)


def twice(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    honest(peer, message_id, request)
    honest(peer, message_id, request)


def unknown_id(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    peer.channel.answer(peer.compute(request), message_id + (1 << 40))


def foreign_id(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    """Answers what another peer was asked last, under its id, wrongly."""
    for other in peer.swarm:
        if other is not peer and other.last is not None:
            peer.channel.answer(_plus(1)(other.last[1], other.compute(other.last[1]), peer), other.last[0])


def garbage(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    peer.channel.answer_frames([b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100])


def other_kind(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    """Messages that are no answer, under the request's id."""
    peer.channel.answer(Ping(), message_id)
    peer.channel.answer(Cancel(message_id), message_id)
    peer.channel.answer(request, message_id)


def kind_then_answer(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    other_kind(peer, message_id, request)
    honest(peer, message_id, request)


def lost(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    peer.channel.lose()


def lost_and_back(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    """Each connection carries two answers and breaks on the third request."""
    if peer.requests % 3:
        honest(peer, message_id, request)
    else:
        peer.channel.lose()
        peer.channel.restore()


def floods(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
    peer.channel.flood()


def error(code: ErrorCode, times: int | None = None) -> Script:
    """Answers with an error, always or the first times only."""

    def script(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        if times is None or peer.requests <= times:
            peer.channel.answer(ErrorReply(code, "no"), message_id)
        else:
            honest(peer, message_id, request)

    return script


def liar(lie: Lie, after: int = 0) -> Script:
    """Honest for so many answers, then lies."""

    def script(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        result = peer.compute(request)
        if peer.requests > after:
            peer.lied = True
            result = lie(request, result, peer)
        peer.channel.answer(result, message_id)

    return script


FAULTS: dict[str, Script] = {
    "silent": silent,
    "one behind": one_behind,
    "newest first": newest_first,
    "every other": every_other,
    "twice": twice,
    "unknown id": unknown_id,
    "foreign id": foreign_id,
    "garbage": garbage,
    "other kind": other_kind,
    "other kind, then the answer": kind_then_answer,
    "lost": lost,
    "lost and back": lost_and_back,
    "floods": floods,
    "exhausted": error(ErrorCode.EXHAUSTED),
    "exhausted once": error(ErrorCode.EXHAUSTED, 1),
    "no session": error(ErrorCode.NO_SESSION),
    "not found": error(ErrorCode.NOT_FOUND),
}
SCRIPTS: dict[str, Script] = {
    "honest": honest,
    **FAULTS,
    **{f"lie: {name}": liar(lie) for name, lie in LIES.items()},
    **{f"later lie: {name}": liar(lie, 3) for name, lie in LIES.items()},
}


class ScriptedPeer:
    """A peer of one session: its channel, its worker, its script and what it was told."""

    def __init__(self, channel: ScriptedChannel, role: Role, script: Script, units: Sequence[Unit]) -> None:
        self.channel = channel
        self.script = script
        self.session = SessionPeer(channel.peer_id, role, channel, PeerMeasures(1e9))  # type: ignore[arg-type]
        self.swarm: Sequence[ScriptedPeer] = ()
        self.requests = 0
        self.last: tuple[int, Linear] | None = None
        self.held: list[tuple[int, Linear]] = []
        self.answered: list[LinearResult] = []
        self.heard: list[Received] = []
        self.lied = False
        norms = {unit.ref.sha256: unit.max_row_norm for unit in units}
        self._worker = LinearWorker(KERNELS, weights_of(units), lambda model_id, unit: norms.get(unit))
        channel.on_send = self._hear

    def compute(self, request: Linear) -> LinearResult:
        result: Any = self._worker.answer(request)
        assert isinstance(result, LinearResult | TrustedResult), result
        self.answered.append(result)
        return result

    def _hear(self, frames: list[bytes], received: Received) -> None:
        assert self.session.status is not PeerStatus.BANNED, "work for a peer that was banned"
        self.heard.append(received)
        request: Any = received.message
        if isinstance(request, Linear | TrustedLinear):
            self.requests += 1
            self.last = (received.id, request)
            self.script(self, received.id, request)

    @property
    def linears(self) -> list[Linear]:
        """Every request about a share or a seed that it was sent."""
        return [received.message for received in self.heard if isinstance(received.message, Linear)]

    @property
    def plain(self) -> list[TrustedLinear]:
        """Every request with rows as they are that it was sent."""
        return [received.message for received in self.heard if isinstance(received.message, TrustedLinear)]
