"""Twins of the seams: units made by hand, and peers that play a script over sockets inside this process.

A scripted peer is a real `LinearWorker` behind a real pair of sockets and the real codec; only what it makes of an
answer is written down. Nothing here has a thread or sleeps: a peer acts while it is being sent a message.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.config import ExecutionConfig
from node.execution.distributed import execute_distributed
from node.execution.gate import UnitChecks
from node.execution.interrupt import Interrupt
from node.execution.manager import ExecutionManager
from node.execution.pads import GuardPads, OwnPads
from node.execution.pads_paired import PairedPads
from node.execution.peer import PeerStatus, SessionPeer
from node.execution.plain import NoPads
from node.kernels import select_kernels
from node.kernels.interface import Kernels
from node.planning.measures import PeerMeasures
from node.store.unit import Unit, UnitRef
from node.transport.control import ControlPlane
from node.transport.data import DataPlane
from node.transport.registry import DialOutcome, DialState, PeerRegistry
from node.transport.sockets import SecureContext
from node.worker import LinearWorker
from protocol.envelope import Frame
from protocol.field import P
from protocol.identity import Identity, PeerId, curve_public_key_of, public_key_of
from protocol.limits import MAX_CONTROL_FRAME_BYTES, MAX_DATA_HEADER_BYTES, PROTOCOL_VERSION
from protocol.messages import (
    Cancel,
    ErrorCode,
    ErrorReply,
    Hello,
    HelloOk,
    HostedModel,
    Linear,
    LinearResult,
    Message,
    Ping,
    Received,
    Role,
    TrustedLinear,
    TrustedResult,
    decode_message,
    encode_message,
)
from protocol.multiaddr import Multiaddr, parse_multiaddr
from protocol.shares import PadSeeds
from protocol.verification import result_digest

KERNELS = select_kernels(1)
MODEL_ID = hashlib.sha256(b"a model of tests").digest()
IMPATIENT = ExecutionConfig(progress_limit_s=0.06, hedge_floor_s=0.02, hedge_unmeasured_s=0.03)
PATIENT = ExecutionConfig()

_names = itertools.count(1)


# --- units


def make_unit(num_outputs: int, num_inputs: int, layer: int = 0, kind: Any = "o", seed: int = 1) -> Unit:
    """A unit of random weights; its hash is of these weights alone."""
    generator = np.random.default_rng([seed, layer, num_outputs, num_inputs])
    weights = generator.integers(-127, 128, (num_outputs, num_inputs), dtype=np.int8)
    ref = UnitRef(layer, kind, num_outputs, num_inputs, hashlib.sha256(weights.tobytes()).digest())
    norm = float(np.sqrt((weights.astype(np.int64) ** 2).sum(axis=1).max()))
    return Unit(ref, weights, np.ones(num_outputs, np.float32), norm, None)


def make_rows(num_rows: int, num_inputs: int, seed: int = 1) -> np.ndarray:
    """Activations of 12 bits, int16 `[num_rows, num_inputs]`."""
    return np.random.default_rng([seed, num_rows]).integers(-2047, 2048, (num_rows, num_inputs), dtype=np.int16)


def weights_of(units: Sequence[Unit]) -> Callable[[bytes, bytes], np.ndarray | None]:
    """What a worker that holds these units looks them up with."""
    held = {(MODEL_ID, unit.ref.sha256): unit.weights for unit in units}
    return lambda model_id, unit: held.get((model_id, unit))


def identity(index: int) -> Identity:
    return Identity.from_seed(hashlib.sha256(b"test identity %d" % index).digest())


# --- a connection whose other end is a script


class ScriptedChannel:
    """Twin of `node.transport.channel.Channel`; whoever plays the peer is called with every message sent."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], peer_id: PeerId, connected: bool = True) -> None:
        self.peer_id = peer_id
        self.connected = connected
        self.bytes_up = 0
        self.bytes_down = 0
        self.near, self._far = _pair(context)
        self._news, self._news_far = _pair(context)
        self.on_send: Callable[[list[bytes], Received], None] = lambda frames, received: None
        self.floods = False
        self.full = False
        self.sent: list[list[bytes]] = []
        self.closed = False

    # What the session sees.

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        return [self.near, self._news]

    def send(self, message: Message, message_id: int) -> bool:
        assert not self.closed, "a message to somebody who was hung up on"
        if self.full:
            return False
        frames = [bytes(frame) for frame in encode_message(message, message_id)]
        self.sent.append(frames)
        self.bytes_up += sum(map(len, frames))
        self.on_send(frames, decode_message(frames, MAX_DATA_HEADER_BYTES))
        return True

    def receive(self) -> Received | None:
        if self.floods:
            return Received(1 << 60, Ping())
        try:
            frames = self.near.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        self.bytes_down += sum(map(len, frames))
        return decode_message(frames, MAX_DATA_HEADER_BYTES)

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


# --- a session


class WatchedKernels:
    """The kernels, with every pad row and every share row noted on its way."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self.pads: list[bytes] = []
        self.rows: list[np.ndarray] = []

    def share(self, rows: np.ndarray, pads: np.ndarray) -> np.ndarray:
        self.pads += [pad.tobytes() for pad in pads]
        self.rows.append(rows.copy())
        return self._kernels.share(rows, pads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)


class WatchedSeeds(PadSeeds):
    """The source of seeds, with every seed noted."""

    made: list[bytes]

    def next(self, layer: int | None, kind: str, role: str) -> bytes:
        seed = PadSeeds.next(self, layer, kind, role)
        self.made.append(seed)
        return seed


class WatchedManager(ExecutionManager):
    """The manager, with every wait noted."""

    waits: list[float]

    def pump(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        super().pump(timeout_s)


@dataclass
class Swarm:
    """One session and its scripted peers; a context manager."""

    units: Sequence[Unit]
    mode: str = "split"
    config: ExecutionConfig = PATIENT
    peers: list[ScriptedPeer] = field(default_factory=list)
    lives: dict[int, list[ChunkState]] = field(default_factory=dict)
    records: dict[int, ChunkRecord] = field(default_factory=dict)
    rechecked: list[Unit] = field(default_factory=list)
    interrupt: Interrupt = field(default_factory=Interrupt)

    def __post_init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.kernels = WatchedKernels(KERNELS)
        checks = UnitChecks(KERNELS)
        for unit in self.units:
            checks.of(unit)
        self.seeds = WatchedSeeds(b"M" * 32, MODEL_ID)
        self.seeds.made = []
        self.manager = WatchedManager(
            self.kernels,  # type: ignore[arg-type]
            MODEL_ID,
            checks,
            1e9,
            self.config,
            self.rechecked.append,
            self._note,
            self.interrupt,
        )
        self.manager.waits = []
        self.own_pads = OwnPads(KERNELS, self.seeds)
        self.paired_pads: PairedPads | None = None
        self.may_read = self.paired = True

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.manager.close()
        for peer in self.peers:
            peer.channel.close()
        self.context.destroy(linger=0)
        self.interrupt.close()

    def _note(self, record: ChunkRecord) -> None:
        self.records[id(record)] = record
        self.lives.setdefault(id(record), [ChunkState.PLANNED]).append(record.state)

    def add_peer(self, role: Role, script: Script) -> ScriptedPeer:
        channel = ScriptedChannel(self.context, identity(len(self.peers)).peer_id)
        peer = ScriptedPeer(channel, role, script, self.units)
        self.peers.append(peer)
        for each in self.peers:
            each.swarm = self.peers
        self.manager.add_peer(peer.session)
        return peer

    def add_lane(self, *scripts: Script) -> tuple[ScriptedPeer, ...]:
        """A lane of (pad guard, share guard), or of one peer alone: in strict mode, also where `add_maker` was called
        before, and in trusted mode."""
        if self.mode == "trusted":
            (script,) = scripts
            reader = self.add_peer(Role.PLAIN, script)
            self.manager.add_lane(reader.session, NoPads(lambda: self.may_read))
            return (reader,)
        if self.mode == "strict":
            (script,) = scripts
            share = self.add_peer(Role.SHARE, script)
            self.manager.add_lane(share.session, self.paired_pads or self.own_pads)
            return (share,)
        pad, share = self.add_peer(Role.PAD, scripts[0]), self.add_peer(Role.SHARE, scripts[1])
        self.manager.add_lane(share.session, GuardPads(pad.session, self.seeds, self.manager.send_pad))
        return pad, share

    def add_maker(self, script: Script) -> ScriptedPeer:
        """A paired device that makes the pads of all lanes of a strict session."""
        maker = self.add_peer(Role.PAD, script)
        theirs = GuardPads(maker.session, self.seeds, self.manager.send_pad)
        self.paired_pads = PairedPads(theirs, self.own_pads, lambda: self.paired)
        return maker

    def step(self, num_rows: int, seed: int = 1) -> None:
        """One forward pass through every unit, each result compared with the local kernel's."""
        self.manager.begin_step(0, num_rows, self.units)
        for index, unit in enumerate(self.units):
            floats = make_rows(num_rows, unit.ref.num_inputs, seed + index).astype(np.float32) * np.float32(0.37)
            rows, _scales = KERNELS.quantize(floats, unit.max_row_norm)
            sums = execute_distributed(self.manager, unit, rows, floats if self.manager.plain else None)
            assert sums.dtype == np.int32
            assert np.array_equal(sums, KERNELS.linear_a12(unit.weights, rows))

    @property
    def ended(self) -> list[ChunkState]:
        """How each chunk's numbers were found: the state before it was merged."""
        return [life[-2] for life in self.lives.values()]


# --- whole nodes on loopback, and raw ends that keep no promise

LOOPBACK = parse_multiaddr("/ip4/127.0.0.1/tcp/0")
WAIT_S = 5.0
"""How long a test waits for what must happen; it never waits for what must not."""


class LiveNode:
    """Both planes and a worker over units made by hand: what `node.node.Node` composes, without a model on disk."""

    def __init__(
        self,
        index: int,
        units: Sequence[Unit] = (),
        listen: Multiaddr | None = LOOPBACK,
        bootstrap: Sequence[Multiaddr] = (),
        worker: LinearWorker | None = None,
        versions: tuple[int, ...] = (PROTOCOL_VERSION,),
        paired: Collection[PeerId] = (),
        banned: Identity | None = None,
        operator: Callable[[], bytes] = lambda: bytes(16),
    ) -> None:
        self.identity = identity(index)
        self.peer_id = self.identity.peer_id
        self.units = units
        self.registry = PeerRegistry()
        self.secure = SecureContext(self.identity, lambda key: banned is not None and key == banned.curve_public_key)
        worker = worker or LinearWorker(KERNELS, weights_of(units))
        self.data = DataPlane(self.secure, self.registry, worker, is_paired=lambda peer_id: peer_id in paired)
        self.control = ControlPlane(
            self.secure, self.registry, self.hello, lambda: self.data.queued, self._offer_service
        )
        self.address: Multiaddr | None = None
        self.data_port = 0
        self._listen, self._bootstrap, self._versions = listen, list(bootstrap), versions
        self._operator = operator

    def hello(self) -> Hello:
        hosted = (HostedModel(MODEL_ID, tuple(unit.ref.sha256 for unit in self.units)),)
        return Hello(
            self.identity.public_key,
            self._versions,
            "live",
            (),
            self.data_port,
            hosted,
            10**9,
            (1,),
            bytes(16),
            operator=self._operator(),
        )

    def _offer_service(self, peer_id: PeerId) -> None:
        peer = next((peer for peer in self.registry.peers() if peer.peer_id == peer_id), None)
        if self.data_port == 0 and peer is not None and peer.data_endpoint is not None:
            self.data.offer(peer_id, peer.data_endpoint)

    def __enter__(self) -> LiveNode:
        self.secure.__enter__()
        try:
            self.data_port = self.data.start(self._listen)
            self.address = self.control.start(self._listen, self._bootstrap)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.control.stop()
        assert self.data.stop()
        self.secure.__exit__()

    # What tests wait for.

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Wait until the registry's news make it true."""
        changed = self.registry._changed
        with changed:
            assert changed.wait_for(happened, WAIT_S), what

    def until_knows(self, *others: PeerId) -> None:
        self.until(lambda: {peer.peer_id for peer in self.registry.peers()} == set(others), f"knows {others}")

    def until_dialled(self, address: Multiaddr, state: DialState) -> DialOutcome:
        def outcome() -> DialOutcome | None:
            known = {outcome.address: outcome for outcome in self.registry.outcomes()}
            found = known.get(str(address))
            return found if found is not None and found.state is state else None

        self.until(outcome, f"{address} is {state}: {self.registry.outcomes()}")
        found = outcome()
        assert found is not None
        return found

    @property
    def data_endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.data_port}"


class RawClient:
    """A DEALER that sends whatever it is told to; a context manager."""

    def __init__(self, endpoint: str, server: PeerId | None, me: Identity, mechanism: str = "curve") -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvhwm = 1
        if mechanism == "curve":
            assert server is not None
            self.socket.curve_serverkey = z85.encode(curve_public_key_of(public_key_of(server)))
            self.socket.curve_secretkey = z85.encode(me.curve_secret_key)
            self.socket.curve_publickey = z85.encode(me.curve_public_key)
        elif mechanism == "plain":
            self.socket.plain_username, self.socket.plain_password = b"admin", b"admin"
        self.identity = me
        self.monitor = self.socket.get_monitor_socket()
        self.events: list[int] = []
        self.socket.connect(endpoint)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)
        self.context.term()

    @property
    def hello(self) -> Hello:
        return Hello(self.identity.public_key, (1,), "raw", (), 0, (), 0, (1,), bytes(16))

    def send(self, message: Message, message_id: int = 1) -> None:
        self.send_frames(encode_message(message, message_id))

    def send_frames(self, frames: Sequence[Frame]) -> None:
        self.socket.sndtimeo = int(1000 * WAIT_S)
        self.socket.send_multipart(frames)

    def receive(self, timeout_s: float = WAIT_S) -> Received | None:
        if not self.socket.poll(int(1000 * timeout_s)):
            return None
        return decode_message(self.socket.recv_multipart(), MAX_CONTROL_FRAME_BYTES)

    def error(self) -> ErrorReply:
        received = self.receive()
        assert received is not None and isinstance(received.message, ErrorReply), received
        return received.message

    def say_hello(self) -> None:
        self.send(self.hello)
        received = self.receive()
        assert received is not None and isinstance(received.message, HelloOk), received

    def until_event(self, *wanted: int) -> int:
        """Wait until the connection had one of these events."""
        while self.monitor.poll(int(1000 * WAIT_S)):
            event = int(parse_monitor_message(self.monitor.recv_multipart())["event"])
            self.events.append(event)
            if event in wanted:
                return event
        raise AssertionError(f"none of {wanted} among {self.events}")


class RawListener:
    """A ROUTER with a good key whose owner says whatever the test likes."""

    def __init__(self, me: Identity) -> None:
        self.secure = SecureContext(me)
        self.identity = me

    def __enter__(self) -> RawListener:
        self.secure.__enter__()
        self.socket = self.secure.context.socket(zmq.ROUTER)
        self.secure.listen(self.socket, 1 << 24)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = LOOPBACK.with_port(port).with_peer(self.identity.peer_id)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close(linger=0)
        self.secure.__exit__()

    @property
    def hello_ok(self) -> HelloOk:
        return HelloOk(self.identity.public_key, (1,), "raw", (), 0, (), 0, (1,), bytes(16))

    def receive(self, *kinds: type, timeout_s: float = WAIT_S) -> tuple[bytes, Received] | None:
        """The next message of one of these kinds."""
        while self.socket.poll(int(1000 * timeout_s)):
            route, *frames = self.socket.recv_multipart()
            received = decode_message(frames, MAX_CONTROL_FRAME_BYTES)
            if isinstance(received.message, kinds):
                return route, received
        return None

    def accept(self) -> bytes:
        """Answer the next hello; the route of the link."""
        said = self.receive(Hello)
        assert said is not None, "nobody said hello"
        self.send(said[0], self.hello_ok, said[1].id)
        return said[0]

    def send(self, route: bytes, message: Message, message_id: int = 0) -> None:
        self.socket.send_multipart([route, *encode_message(message, message_id)])
