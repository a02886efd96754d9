"""The data plane over real sockets: who is served, over which connection, and what the thread survives."""

import contextlib
import gc
import itertools
import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from live_nodes import WAIT_S, LiveNode, RawClient, RawListener
from made_parts import KERNELS, MODEL_ID, identity, make_rows, make_unit, weights_of
from msgspec.structs import replace
from scripted_session import PATIENT
from waiting import until

from node.execution import ExecutionManager, execute_distributed
from node.execution.gate import UnitChecks
from node.execution.pads.guard import GuardPads
from node.execution.peer import SessionPeer
from node.measures.peers import PeerMeasures
from node.serving import inbox
from node.serving.outbox import MAX_UNREAD_BYTES_A_ROUTE
from node.serving.worker import LinearWorker, Parts
from node.transport import control
from node.transport.channel import MAX_UNASKED_BYTES, Channel, open_channel
from node.transport.link import Pace
from node.transport.log_limit import BURST
from node.transport.registry import ConnectedPeer, DialState
from node.transport.sockets import MAX_DATA_FRAME_BYTES
from protocol import cbor
from protocol.codec import Received
from protocol.identity import PeerId
from protocol.limits import MAGIC, MAX_DATA_BYTES
from protocol.linear.field import P
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.linear.shares import PadSeeds, pad_rows
from protocol.link.hello import Hello
from protocol.link.messages import Attach
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping

UNITS = [make_unit(20, 6), make_unit(530, 5, layer=1, kind="qkv")]
SEED = bytes(range(32))
PLANES = ("control plane", "data plane")


@pytest.fixture(autouse=True)
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw client's control link says hello and nothing more; on a busy machine a test may outlast five seconds."""
    monkeypatch.setattr(control, "DEFAULT_PACE", Pace(silence_limit_s=10 * WAIT_S))


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No thread, and no socket: collecting an open one is a ResourceWarning, which is an error here."""
    yield
    assert not [
        thread for thread in threading.enumerate() if thread.name in PLANES or "Auth" in type(thread).__name__
    ]
    gc.collect()


class GatedWorker(LinearWorker):
    """Waits for leave before each answer: as a large part in the kernels does, or between two parts."""

    def __init__(self) -> None:
        super().__init__(KERNELS, weights_of(UNITS))
        self.reached = threading.Event()
        self.leave = threading.Event()
        self.listens = False
        """Whether the plane hears what comes meanwhile, as it does between two parts of a chunk."""

    def parts(self, request: Linear | TrustedLinear) -> Parts:
        self.reached.set()
        deadline = time.monotonic() + 2 * WAIT_S
        while not self.leave.wait(0.001):
            assert time.monotonic() < deadline
            if self.listens:
                yield
        return (yield from super().parts(request))


def pad_request(nonce: int = 1, num_rows: int = 1, unit: int = 0, seed: bytes = SEED) -> Linear:
    tiles = -(-UNITS[unit].ref.num_outputs // 512)
    binding = ChunkBinding(bytes(16), nonce, MODEL_ID, UNITS[unit].ref.sha256, Role.PAD, 0, num_rows, 0, tiles)
    return Linear(binding, seed=seed)


def right_answer(request: Linear, unit: int = 0) -> np.ndarray:
    assert request.seed is not None
    rows = pad_rows(request.seed, 0, request.binding.num_rows, UNITS[unit].ref.num_inputs)
    return KERNELS.linear_field(UNITS[unit].weights, rows)


@contextlib.contextmanager
def introduced(node: LiveNode, index: int = 7) -> Iterator[RawClient]:
    """A raw data connection whose owner said hello on the control plane."""
    assert node.address is not None
    with RawClient(node.address.endpoint, node.peer_id, identity(index)) as control:
        control.say_hello()
        with RawClient(node.data_endpoint, node.peer_id, identity(index)) as data:
            yield data


def is_served(client: RawClient, nonce: int = 4242) -> None:
    client.send(pad_request(nonce), nonce)
    while True:
        received = client.receive()
        assert received is not None
        if received.id == nonce:
            break
    assert isinstance(received.message, LinearResult)
    assert np.array_equal(received.message.rows, right_answer(pad_request()))


def test_plain_rows_are_taken_from_paired_devices_alone() -> None:
    """Whoever is not paired is told so, and nothing of what it sent is looked at."""

    def plain(nonce: int) -> TrustedLinear:
        share = pad_request(nonce).binding
        return TrustedLinear(replace(share, role=Role.PLAIN), np.ones((1, UNITS[0].ref.num_inputs), np.float32))

    paired: set[PeerId] = set()
    norms = {(MODEL_ID, unit.ref.sha256): unit.max_row_norm for unit in UNITS}
    worker = LinearWorker(KERNELS, weights_of(UNITS), lambda model_id, unit: norms.get((model_id, unit)))
    with LiveNode(1, UNITS, worker=worker, paired=paired) as node, introduced(node) as client:
        for stranger in (True, False):
            if not stranger:
                paired.add(identity(7).peer_id)
            client.send(plain(5), 5)
            received = client.receive()
            assert received is not None and received.id == 5
            if stranger:
                assert isinstance(received.message, ErrorReply) and received.message.code == ErrorCode.DENIED
            else:
                assert isinstance(received.message, TrustedResult)
        is_served(client)


def receive(channel: Channel) -> Received:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        poller = zmq.Poller()
        for one in channel.pollables:
            poller.register(one, zmq.POLLIN)
        poller.poll(100)
        channel.notice_losses()
        received = channel.receive()
        if received is not None:
            return received
    raise AssertionError("no answer")


# --- who is served


@pytest.mark.parametrize("message", [pad_request(), Attach(), Cancel(1), Ping(), ErrorReply(100, "x")])
def test_strangers_are_told_to_say_hello(message: Message) -> None:
    with LiveNode(1, UNITS) as node, RawClient(node.data_endpoint, node.peer_id, identity(7)) as client:
        client.send(message, 66)
        received = client.receive()
        assert received is not None and received.id == 66
        assert isinstance(received.message, ErrorReply)
        assert received.message.code == ErrorCode.NO_SESSION
        assert not node.registry.peers()
        assert node.registry.route_of(client.identity.peer_id) is None


def test_who_said_hello_is_served() -> None:
    with LiveNode(1, UNITS) as node, introduced(node) as client:
        is_served(client)


def test_one_hello_does_not_serve_another_key() -> None:
    with (
        LiveNode(1, UNITS) as node,
        introduced(node),
        RawClient(node.data_endpoint, node.peer_id, identity(8)) as stranger,
    ):
        stranger.send(pad_request())
        assert stranger.error().code == ErrorCode.NO_SESSION


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (
            Linear(ChunkBinding(bytes(16), 1, bytes(32), bytes(32), Role.PAD, 0, 1, 0, 1), seed=SEED),
            ErrorCode.NOT_FOUND,
        ),
        (
            Linear(
                ChunkBinding(bytes(16), 1, MODEL_ID, UNITS[0].ref.sha256, Role.SHARE, 0, 1, 0, 1),
                rows=np.full((1, 6), P, np.uint32),
            ),
            ErrorCode.INVALID,
        ),
    ],
)
def test_errors_come_back_under_the_id_of_the_request(request_: Linear, code: ErrorCode) -> None:
    with LiveNode(1, UNITS) as node, introduced(node) as client:
        client.send(request_, 31)
        received = client.receive()
        assert received is not None and received.id == 31
        assert isinstance(received.message, ErrorReply)
        assert received.message.code == code
        is_served(client)


def test_an_unknown_message_is_answered() -> None:
    with LiveNode(1, UNITS) as node, introduced(node) as client:
        client.send_frames([MAGIC + cbor.encode({0: 4321, 1: 55, 4: {}})])
        received = client.receive()
        assert received is not None and received.id == 55
        assert isinstance(received.message, ErrorReply)
        assert received.message.code == ErrorCode.UNIMPLEMENTED
        is_served(client)


@pytest.mark.parametrize("known", [True, False])
def test_garbage_ends_nothing(known: bool) -> None:
    header = {0: 32, 1: 1, 4: {}}
    garbage = [
        [b""],
        [b"x"],
        [MAGIC],
        [MAGIC + b"\xff" * 200],
        [MAGIC + cbor.encode(header)],
        [MAGIC + cbor.encode({**header, 5: [[5, [0, 1 << 23, 1 << 23, 1 << 23], 0]]}), b""],
        [MAGIC + cbor.encode({**header, 5: [[5, [1, 1], 4]]}), b"abcd"],
        [MAGIC + cbor.encode({**header, 5: [[5, [1, 1], 4]] * 16}), *[b"abcd"] * 16],
        [b"\0" * 100_000, b"", b"\0"],
    ]
    with LiveNode(1, UNITS) as node, introduced(node) as client:
        if known:
            for frames in garbage:
                client.send_frames(frames)
        else:
            with RawClient(node.data_endpoint, node.peer_id, identity(8)) as stranger:
                for frames in garbage:
                    stranger.send_frames(frames)
                stranger.send(Ping(), 9)
                while (received := stranger.receive()) is not None and received.id != 9:
                    pass
                assert received is not None
        is_served(client)


def test_a_frame_that_is_too_large_costs_the_connection_only() -> None:
    with LiveNode(1, UNITS) as node, introduced(node) as client:
        is_served(client)
        client.send_frames([bytes(MAX_DATA_FRAME_BYTES + 1)])
        client.until_event(zmq.EVENT_DISCONNECTED)
        with introduced(node, 8) as other:
            is_served(other)


# --- a queue with bounds


def test_too_many_requests_are_refused_and_none_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_JOBS_A_PEER", 127)
    worker = GatedWorker()
    worker.listens = True
    with LiveNode(1, UNITS, worker=worker) as node, introduced(node) as client:
        try:
            for index in range(300):
                client.send(pad_request(index), index)
            until(lambda: node.data.queued == 128, "as many wait as may")
        finally:
            worker.leave.set()
        answers = {}
        while len(answers) < 300:
            received = client.receive()
            assert received is not None, f"{len(answers)} answers"
            assert received.id not in answers
            answers[received.id] = received.message
        refused = [answer for answer in answers.values() if isinstance(answer, ErrorReply)]
        assert {answer.code for answer in refused} == {ErrorCode.EXHAUSTED}
        assert 0 < len(refused) < 300
        assert node.data.queued == 0


def test_who_does_not_read_holds_up_nobody_and_loses_nothing() -> None:
    with LiveNode(1, UNITS) as node, introduced(node, 7) as lazy, introduced(node, 8) as other:
        for index in range(100):
            lazy.send(pad_request(index, 512, unit=1), index)
        nonces = itertools.count(1000)
        deadline = time.monotonic() + WAIT_S
        outbox, standstill = node.data._outbox, 0
        while standstill < 10 and time.monotonic() < deadline:  # buffers of the kernel fill up meanwhile
            waiting = node.data.queued
            is_served(other, next(nonces))
            full = [path[0] for path in list(outbox._unread) if outbox.is_full(path)]
            standstill = standstill + 1 if full and 0 < node.data.queued == waiting else 0
        assert standstill == 10  # nothing more is computed for whoever does not read
        assert full == [lazy.identity.peer_id]
        assert outbox.num_bytes < MAX_UNREAD_BYTES_A_ROUTE + MAX_DATA_BYTES
        answers = [received for received in (lazy.receive() for _ in range(100)) if received is not None]
        assert [received.id for received in answers] == list(range(100))
        assert all(isinstance(received.message, LinearResult) for received in answers)
        is_served(lazy)


def test_breaks_and_waiting_messages_hold_up_no_long_request() -> None:
    """One peer always has many short requests waiting; another asks for a long one, then for a short one, in turn."""
    with LiveNode(1, UNITS) as node, introduced(node, 7) as greedy, introduced(node, 8) as single:
        sent, answered = itertools.count(), 0
        for index in itertools.islice(sent, 200):
            greedy.send(pad_request(index), index)
        for nonce in range(1000, 1040):
            single.send(pad_request(nonce, 512 if nonce % 2 else 1, unit=1), nonce)
            while True:
                while (received := greedy.receive(0.0)) is not None:
                    assert isinstance(received.message, LinearResult)
                    answered += 1
                    index = next(sent)
                    greedy.send(pad_request(index), index)
                if (received := single.receive(0.001)) is not None:
                    break
            assert received.id == nonce and isinstance(received.message, LinearResult)
        assert answered > 40


def test_requests_beyond_those_that_are_opened_are_answered_in_order_and_can_be_cancelled() -> None:
    worker = GatedWorker()
    worker.listens = True
    with LiveNode(1, UNITS, worker=worker) as node, introduced(node) as client:
        for index in range(100):
            client.send(pad_request(index), index)
        until(lambda: node.data.queued == 99, "one is computed, the others wait")
        for index in range(50, 100):
            client.send(Cancel(index), 1000 + index)
        client.send_frames([MAGIC + cbor.encode({0: 4321, 1: 2000, 4: {}})])
        assert (unknown := client.receive()) is not None and unknown.id == 2000, "what is short is opened at once"
        worker.leave.set()
        answers = [received for received in (client.receive() for _ in range(50)) if received is not None]
        assert [received.id for received in answers] == list(range(50))
        is_served(client)
        assert worker.answered == 51, "what was cancelled while it waited is not computed"


def test_what_was_cancelled_is_not_computed() -> None:
    worker = GatedWorker()
    worker.listens = True
    with LiveNode(1, UNITS, worker=worker) as node, introduced(node) as client:
        client.send(pad_request(1), 1)
        assert worker.reached.wait(WAIT_S)
        client.send(pad_request(2), 2)
        client.send(pad_request(3), 3)
        until(lambda: node.data.queued == 2, "both wait")
        client.send(Cancel(2), 4)
        client.send(Cancel(77), 5)
        until(lambda: node.data.queued == 1, "one is cancelled")
        worker.leave.set()
        ids = [received.id for received in (client.receive(), client.receive()) if received is not None]
        assert ids == [1, 3]
        is_served(client)


def test_a_request_is_cancelled_while_it_is_computed() -> None:
    """Between two parts the plane hears of it; nothing is answered, and the next request is served."""
    worker = GatedWorker()
    worker.listens = True
    with LiveNode(1, UNITS, worker=worker) as node, introduced(node) as client:
        client.send(pad_request(1, unit=1), 1)
        assert worker.reached.wait(WAIT_S)
        client.send(Cancel(1), 2)
        until(lambda: not node.data._computing.work.ready(lambda path: False), "it is dropped")
        worker.leave.set()
        client.send(pad_request(3), 3)
        answer = client.receive()
        assert answer is not None and answer.id == 3
        assert client.receive(0.1) is None


def test_a_peer_cannot_cancel_for_another() -> None:
    worker = GatedWorker()
    with LiveNode(1, UNITS, worker=worker) as node, introduced(node, 7) as first, introduced(node, 8) as second:
        first.send(pad_request(1), 1)
        assert worker.reached.wait(WAIT_S)
        first.send(pad_request(2), 2)
        second.send(Cancel(2), 9)
        second.send(pad_request(3), 3)
        worker.leave.set()
        assert second.receive() is not None
        assert [received.id for received in (first.receive(), first.receive()) if received is not None] == [1, 2]


def test_leaving_does_not_wait_for_a_chunk() -> None:
    worker = GatedWorker()
    node = LiveNode(1, UNITS, worker=worker)
    node.secure.__enter__()
    node.data_port = node.data.start(node._listen)
    node.address = node.control.start(node._listen, [])
    try:
        with introduced(node) as client:
            client.send(pad_request())
            assert worker.reached.wait(WAIT_S)
            started = time.monotonic()
            node.control.stop()
            assert not node.data.stop()
            assert time.monotonic() - started < 3
    finally:
        worker.leave.set()
        assert node.data._thread is not None
        node.data._thread.join(WAIT_S)
        node.data._commands.close()
        node.secure.__exit__()


# --- channels


def known_peer(node: LiveNode, other: LiveNode) -> ConnectedPeer:
    """The other node as a session finds it."""
    node.until(lambda: other.peer_id in {peer.peer_id for peer in node.registry.usable()}, "usable")
    return next(peer for peer in node.registry.usable() if peer.peer_id == other.peer_id)


@contextlib.contextmanager
def pair(dial_only: bool, does: LinearWorker | None = None) -> Iterator[tuple[LiveNode, LiveNode]]:
    """(client, worker); the worker listens, or can only dial the client."""
    if dial_only:
        with LiveNode(1) as client:
            assert client.address is not None
            with LiveNode(2, UNITS, listen=None, bootstrap=[client.address], worker=does) as worker:
                yield client, worker
    else:
        with LiveNode(2, UNITS, worker=does) as worker:
            assert worker.address is not None
            with LiveNode(1, bootstrap=[worker.address]) as client:
                yield client, worker


@pytest.mark.parametrize("dial_only", [False, True])
def test_a_channel_carries_requests_either_way(dial_only: bool) -> None:
    with pair(dial_only) as (client, worker):
        peer = known_peer(client, worker)
        assert (peer.data_endpoint is None) == dial_only
        channel = open_channel(client.secure, client.data, peer)
        assert channel.wait_connected(WAIT_S)
        assert channel.receive() is None
        for nonce, num_rows in ((1, 1), (2, 32)):
            request = pad_request(nonce, num_rows)
            assert channel.send(request, nonce)
            received = receive(channel)
            assert received.id == nonce
            assert isinstance(received.message, LinearResult)
            assert np.array_equal(received.message.rows, right_answer(request))
        assert channel.bytes_up > 0
        assert channel.bytes_down > 33 * 20 * 4
        assert channel.notice_losses() == 0
        channel.close()
        channel.close()


def test_an_answer_to_a_session_that_has_ended_stops_nothing() -> None:
    gated = GatedWorker()
    with pair(dial_only=True, does=gated) as (client, worker):
        peer = known_peer(client, worker)
        ended = open_channel(client.secure, client.data, peer)
        assert ended.send(pad_request(1), 1)
        assert gated.reached.wait(WAIT_S)
        ended.close()
        gated.leave.set()
        with introduced(client, 9) as other:
            for nonce in range(20):
                other.send(pad_request(nonce), nonce)
                assert other.error().code == ErrorCode.NOT_FOUND
        channel = open_channel(client.secure, client.data, peer)
        assert channel.send(pad_request(7), 7)
        while receive(channel).id != 7:
            pass
        channel.close()


def test_sessions_come_and_go_over_one_attached_connection() -> None:
    """What arrives for a session that has ended is dropped; the next one is served."""
    with pair(dial_only=True) as (client, worker):
        peer = known_peer(client, worker)
        nonces = itertools.count(1)
        for _ in range(5):
            channel = open_channel(client.secure, client.data, peer)
            for _ in range(4):
                nonce = next(nonces)
                assert channel.send(pad_request(nonce), nonce)
            while receive(channel).id < nonce - 3:  # answers to the session before may still come in
                pass
            channel.close()
        last = open_channel(client.secure, client.data, peer)
        nonce = next(nonces)
        assert last.send(pad_request(nonce, 8), nonce)
        while (received := receive(last)).id != nonce:
            pass
        assert isinstance(received.message, LinearResult)
        last.close()
        with introduced(client, 9) as other:
            other.send(pad_request(1), 1)
            assert other.error().code == ErrorCode.NOT_FOUND


def test_who_attaches_over_and_over_makes_no_session_look_around_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "node.serving.reception")
    with LiveNode(1) as node, introduced(node) as client:
        client.send(Attach(), 1)
        until(lambda: node.registry.route_of(client.identity.peer_id) is not None, "it serves")
        version = node.registry.version
        for index in range(2, 202):
            client.send(Attach(), index)
        client.send(pad_request(300), 300)
        assert client.error().code == ErrorCode.NOT_FOUND, "all before were read"
        assert node.registry.version == version
    lines = [record for record in caplog.records if "serves over the connection" in record.message]
    assert 1 <= len(lines) <= BURST + 1


def test_of_two_devices_that_serve_over_their_own_connections_the_one_that_stays_is_asked() -> None:
    with LiveNode(1) as client, contextlib.ExitStack() as rest:
        bootstrap = [client.address] if client.address else []
        first = rest.enter_context(LiveNode(2, UNITS, listen=None, bootstrap=bootstrap))
        peer = known_peer(client, first)
        before = client.registry.route_of(peer.peer_id)
        with LiveNode(2, UNITS, listen=None, bootstrap=bootstrap):
            client.until(lambda: client.registry.route_of(peer.peer_id) != before, "the second one attached too")
        channel = open_channel(client.secure, client.data, peer)
        nonces = itertools.count(1)

        def answers() -> bool:
            nonce = next(nonces)
            return channel.send(pad_request(nonce), nonce) and channel.receive() is not None

        until(answers, "the one that stays answers")
        assert client.registry.route_of(peer.peer_id) == before
        assert [known.peer_id for known in client.registry.usable()] == [peer.peer_id]
        channel.close()


def test_a_lost_connection_is_noticed() -> None:
    with LiveNode(1) as client:
        with LiveNode(2, UNITS) as worker:
            peer = ConnectedPeer(worker.peer_id, worker.hello(), "127.0.0.1", True)
            channel = open_channel(client.secure, client.data, peer)
            assert channel.wait_connected(WAIT_S)
            assert channel.connected
        poller = zmq.Poller()
        for one in channel.pollables:
            poller.register(one, zmq.POLLIN)
        assert poller.poll(int(1000 * WAIT_S))
        assert channel.notice_losses() >= 1
        assert not channel.connected
        assert not channel.send(pad_request(), 1)
        assert not channel.wait_connected(0.01)
        channel.close()


def test_a_peer_cannot_make_a_session_hold_a_message_without_an_end() -> None:
    """A result of very many frames is not received before its last, and that it passed the bound is seen before."""
    with LiveNode(1) as client, RawListener(identity(2)) as peer:
        hello = replace(client.hello(), public_key=peer.identity.public_key, data_port=peer.address.port)
        known = ConnectedPeer(peer.identity.peer_id, hello, "127.0.0.1", True)
        channel = open_channel(client.secure, client.data, known)
        assert channel.wait_connected(WAIT_S)
        assert channel.send(pad_request(), 1)
        said = peer.receive(Linear)
        assert said is not None
        frame = bytes(1 << 20)
        peer.socket.send_multipart([said[0]] + [frame] * (2 * MAX_UNASKED_BYTES // len(frame)), copy=False)
        deadline = time.monotonic() + 4 * WAIT_S
        while not channel.is_overfull(0):
            assert time.monotonic() < deadline, "the bound is met"
            time.sleep(0.005)
        channel.close()


def test_a_listener_that_forgot_is_not_attached_to_over_and_over() -> None:
    with (
        RawListener(identity(1)) as listener,
        RawListener(identity(1)) as plane,
        LiveNode(2, UNITS, listen=None, bootstrap=[listener.address]) as node,
    ):
        said = listener.receive(Hello)
        assert said is not None
        listener.send(said[0], replace(listener.hello_ok, data_port=plane.address.port), said[1].id)
        node.until_dialled(listener.address, DialState.UP)
        attached = plane.receive(Attach)
        assert attached is not None
        plane.send(attached[0], ErrorReply(ErrorCode.NO_SESSION, "who?"), attached[1].id)
        plane.send(attached[0], pad_request(5), 5)
        said = plane.receive(Attach, LinearResult)
        assert said is not None and isinstance(said[1].message, LinearResult)


# --- all of it together


def test_a_layer_through_real_nodes() -> None:
    """One lane: the guard of the pads can only dial out, the guard of the shares listens."""
    with LiveNode(3, UNITS) as share_node:
        assert share_node.address is not None
        with LiveNode(1, bootstrap=[share_node.address]) as client:
            assert client.address is not None
            with LiveNode(2, UNITS, listen=None, bootstrap=[client.address]) as pad_node:
                checks = UnitChecks(KERNELS)
                for unit in UNITS:
                    checks.of(unit)
                manager = ExecutionManager(
                    KERNELS, MODEL_ID, checks, 1e9, PATIENT, lambda unit: None, lambda record: None
                )
                peers = []
                for node, role in ((pad_node, Role.PAD), (share_node, Role.SHARE)):
                    channel = open_channel(client.secure, client.data, known_peer(client, node))
                    assert channel.wait_connected(WAIT_S)
                    peers.append(SessionPeer(node.peer_id, role, channel, PeerMeasures(1e9)))
                    manager.add_peer(peers[-1])
                manager.add_lane(peers[1], GuardPads(peers[0], PadSeeds(bytes(32), MODEL_ID), manager.send_pad))
                for num_rows in (40, 1, 1, 1):
                    manager.hear()
                    manager.begin_step(num_rows, UNITS)
                    for unit in UNITS:
                        rows = make_rows(num_rows, unit.ref.num_inputs)
                        sums = execute_distributed(manager, unit, rows)
                        assert np.array_equal(sums, KERNELS.linear_a12(unit.weights, rows))
                assert manager.counts.verified > 0
                assert manager.counts.rejected == 0
                assert manager.counts.merged == manager.counts.verified + manager.counts.local
                manager.close()


def test_a_node_that_leaves_answers_what_waits() -> None:
    """Ten requests wait behind one in the kernels when the node is told to stop: all eleven are answered."""
    worker = GatedWorker()
    with LiveNode(1, UNITS, worker=worker) as node, introduced(node) as client:
        for index in range(11):
            client.send(pad_request(index), index)
        assert worker.reached.wait(WAIT_S)
        stopping = threading.Thread(target=node.data.stop)
        stopping.start()
        worker.leave.set()
        answers = [client.receive() for _ in range(11)]
        stopping.join()
        assert all(received is not None and isinstance(received.message, LinearResult) for received in answers)
