"""Channels of a session over real sockets: whose connection they are, and how they end."""

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from live_nodes import WAIT_S, LiveNode, RawListener
from made_parts import KERNELS, MODEL_ID, identity, make_rows
from msgspec.structs import replace
from scripted_session import PATIENT
from served_units import UNITS, GatedWorker, introduced, pad_request, receive, right_answer
from waiting import until

from node.execution import ExecutionManager, execute_distributed
from node.execution.gate import UnitChecks
from node.execution.pads.guard import GuardPads
from node.execution.peer import SessionPeer
from node.measures.peers import PeerMeasures
from node.serving.worker import LinearWorker
from node.transport.channel import MAX_UNASKED_BYTES, open_channel
from node.transport.log_limit import BURST
from node.transport.registry import ConnectedPeer, DialState
from protocol.linear.messages import Linear, LinearResult, Role
from protocol.linear.shares import PadSeeds
from protocol.link.hello import Hello
from protocol.link.messages import Attach
from protocol.message import ErrorCode, ErrorReply

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind", "patient_links")


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
