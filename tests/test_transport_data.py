"""The data plane over real sockets: who is served, over which connection, and what the thread survives."""

import contextlib
import itertools
import time

import numpy as np
import pytest
import zmq
from live_nodes import WAIT_S, LiveNode, RawClient, knock
from made_parts import KERNELS, MODEL_ID, identity, weights_of
from msgspec.structs import replace
from served_units import SEED, UNITS, GatedWorker, introduced, is_served, pad_request
from waiting import until

from node.errors import TransportError
from node.serving import inbox
from node.serving.outbox import MAX_UNREAD_BYTES_A_ROUTE
from node.serving.worker import LinearWorker
from node.transport import conduct
from node.transport.sockets import MAX_DATA_FRAME_BYTES
from protocol import cbor
from protocol.codec import encode_message
from protocol.identity import PeerId
from protocol.limits import MAGIC, MAX_DATA_BYTES
from protocol.linear.field import P
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear, TrustedResult
from protocol.link.messages import Attach
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind", "patient_links")


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


@pytest.mark.parametrize("is_malformed", [True, False])
def test_who_pours_messages_without_a_hello_is_refused_at_the_door(
    is_malformed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct, "DROPPED_LIMIT", 256)  # thousands of them take seconds
    frames = [bytes(100)] if is_malformed else encode_message(Ping(), 1)
    with LiveNode(1, UNITS) as node, introduced(node) as client:
        with RawClient(node.data_endpoint, node.peer_id, identity(9)) as stranger:
            stranger.until_event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            deadline = time.monotonic() + 4 * WAIT_S  # 256 messages beyond its part, on a machine that may be busy
            while not stranger.monitor.poll(0):
                assert time.monotonic() < deadline, "it was let go on"
                for _ in range(1000):
                    with contextlib.suppress(zmq.Again):
                        stranger.socket.send_multipart(frames, zmq.DONTWAIT)
                    with contextlib.suppress(zmq.Again):  # libzmq notices no end of a connection that nobody reads
                        stranger.socket.recv_multipart(zmq.DONTWAIT)
                is_served(client)  # others ask too: what is beyond its part is dropped
            stranger.until_event(zmq.EVENT_DISCONNECTED)
        with pytest.raises(TransportError, match="no room"):
            knock(node.data_endpoint, node.peer_id, identity(9))
        with RawClient(node.data_endpoint, node.peer_id, identity(8)) as other:

            def is_told() -> bool:
                other.send(Ping())
                told = other.receive(timeout_s=0.1)
                return told is not None and told.message == ErrorReply(ErrorCode.NO_SESSION, "say hello first")

            # All without a hello share one part of the time, and the flood has just used it up.
            until(is_told, "another is told to say hello")
        is_served(client)


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
        assert answered >= 20, "at least one in every second of the gaps between 40 single requests"


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
        until(lambda: node.data._computing.work.ready(lambda path: False), "a part is computed, others are to come")
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
        node.secure.__exit__()
