"""Whoever is kept out is kept out of both planes, on connections that stand already and under either of its names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from live_nodes import WAIT_S, LiveNode, RawClient, RawListener, knock
from made_parts import MODEL_ID, identity, make_unit
from nacl.bindings import crypto_core_ed25519_sub

from node.config import NodeConfig
from node.errors import PeerRefusedError
from node.node import Node
from node.swarm.access import AccessList, Verdict
from node.transport import control
from node.transport.link import Pace
from protocol.identity import PeerId, curve_public_key_of, peer_id_of
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role
from protocol.link.hello import Hello, HelloOk
from protocol.link.messages import Attach, GoAway
from protocol.membership.messages import Claim, Gossip, State
from protocol.message import ErrorCode, ErrorReply
from protocol.multiaddr import parse_multiaddr

LOOPBACK = parse_multiaddr("/ip4/127.0.0.1/tcp/0")
UNIT = make_unit(20, 6)


@pytest.fixture(autouse=True)
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw client's link says hello and nothing more."""
    monkeypatch.setattr(control, "DEFAULT_PACE", Pace(silence_limit_s=10 * WAIT_S))


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(NodeConfig(identity(1), LOOPBACK, threads=1), []) as running:
        yield running


def twin_of(public_key: bytes) -> bytes:
    """`-A`: the other Ed25519 key of the same CURVE key."""
    return crypto_core_ed25519_sub(bytes([1]) + bytes(31), public_key)


def request(nonce: int) -> Linear:
    binding = ChunkBinding(bytes(16), nonce, MODEL_ID, UNIT.ref.sha256, Role.PAD, 0, 1, 0, 1)
    return Linear(binding, seed=bytes(range(32)))


def until_gone(node: Node | LiveNode, peer_id: PeerId) -> None:
    deadline = time.monotonic() + WAIT_S
    while any(peer.peer_id == peer_id for peer in node.registry.peers()):
        assert time.monotonic() < deadline, "the ban ends the link"
        time.sleep(0.01)


def test_a_ban_holds_for_both_identities_of_a_key() -> None:
    me, access = identity(2), AccessList(None, time.time)
    twin = peer_id_of(twin_of(me.public_key))
    assert curve_public_key_of(twin_of(me.public_key)) == me.curve_public_key and twin != me.peer_id
    access.put(me.peer_id, Verdict.BAN)
    assert access.refusal(twin) == "banned"


def test_the_banned_do_not_come_back_under_their_other_name(node: Node) -> None:
    """Their connections are ended, and the door knows the one CURVE key of both names."""
    assert node.address is not None
    me = identity(2)
    with RawClient(node.address.endpoint, node.peer_id, me) as client:
        client.say_hello()
        node.ban(me.peer_id, "it lied")
        received = client.receive()
        assert received is not None and isinstance(received.message, GoAway)
        client.until_event(zmq.EVENT_DISCONNECTED)
        with pytest.raises(PeerRefusedError):
            knock(node.address.endpoint, node.peer_id, me)
        assert node.registry.peers() == []


def test_a_ban_ends_the_links_of_the_other_name_too(node: Node) -> None:
    assert node.address is not None
    me = identity(2)
    with RawClient(node.address.endpoint, node.peer_id, me) as client:
        client.send(Hello(twin_of(me.public_key), (1,), "raw", (), 0, (), 0, (1,), bytes(16)))
        received = client.receive()
        assert received is not None and isinstance(received.message, HelloOk)
        node.ban(me.peer_id, "it lied")
        until_gone(node, peer_id_of(twin_of(me.public_key)))


def test_a_ban_counts_from_the_moment_it_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its links end in the control plane's loop, which may be busy: until then it gets nothing and asks in vain."""
    assert node.address is not None
    me = identity(2)
    with RawClient(node.address.endpoint, node.peer_id, me) as link:
        link.say_hello()
        assert node.registry.wait_up(me.peer_id, WAIT_S)
        monkeypatch.setattr(node.control, "drop", lambda peer_id, reason: None)
        node.ban(me.peer_id, "it lied")
        assert node.registry.peer(me.peer_id) is None and not node.registry.usable()


@pytest.mark.parametrize("says_goodbye_first", [False, True])
def test_a_data_connection_that_stands_serves_the_banned_no_longer(node: Node, says_goodbye_first: bool) -> None:
    """A goodbye keeps a peer's questions answered for a while: not those of one that was banned since."""
    assert node.address is not None
    me = identity(2)
    data_endpoint = f"tcp://127.0.0.1:{node.hello().data_port}"
    with (
        RawClient(node.address.endpoint, node.peer_id, me) as link,
        RawClient(data_endpoint, node.peer_id, me) as data,
    ):
        link.say_hello()
        assert node.registry.wait_up(me.peer_id, WAIT_S)
        data.send(request(1), 1)
        assert data.error().code == ErrorCode.NOT_FOUND, "it is served: this node holds no such unit"
        if says_goodbye_first:
            link.send(GoAway("bye"), 0)
            until_gone(node, me.peer_id)
            data.send(request(2), 2)
            assert data.error().code == ErrorCode.NOT_FOUND
        node.ban(me.peer_id, "it lied")
        deadline = time.monotonic() + WAIT_S
        while node.registry.is_heard(me.peer_id):
            assert time.monotonic() < deadline, "the ban is heard of"
            time.sleep(0.01)
        data.until_event(zmq.EVENT_DISCONNECTED)
        with pytest.raises(PeerRefusedError):
            knock(data_endpoint, node.peer_id, me)


def test_a_node_that_only_dials_out_serves_nobody_whose_link_is_closed() -> None:
    with RawListener(identity(1)) as control_side, RawListener(identity(1)) as data_side:
        port = data_side.address.port
        with LiveNode(2, [UNIT], listen=None, bootstrap=[control_side.address]) as worker:
            said = control_side.receive(Hello)
            assert said is not None
            me = control_side.identity.public_key
            answer = HelloOk(me, (1,), "raw", (), port, (), 0, (1,), bytes(16))
            control_side.send(said[0], answer, said[1].id)
            attached = data_side.receive(Attach)
            assert attached is not None
            data_side.send(attached[0], request(1), 1)
            served = data_side.receive(LinearResult, ErrorReply)
            assert served is not None and isinstance(served[1].message, LinearResult)
            worker.control.drop(control_side.identity.peer_id, "banned")
            until_gone(worker, control_side.identity.peer_id)
            data_side.send(attached[0], request(2), 2)
            refused = data_side.receive(LinearResult, ErrorReply)
            assert refused is not None and isinstance(refused[1].message, ErrorReply), "it was served"
            assert refused[1].message.code == ErrorCode.NO_SESSION


def test_a_full_list_or_disk_ends_neither_the_ban_nor_the_node(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("node.swarm.access.MAX_ENTRIES", 3)
    for index in (3, 4, 5):
        node.access.put(identity(index).peer_id, Verdict.ALLOW)
    node.ban(identity(2).peer_id, "it lied", 60.0)
    assert "could not be stored" in caplog.text


def test_bans_that_pass_make_room_and_what_the_user_said_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost nothing: whoever lies under ever new ones must not fill the list."""
    monkeypatch.setattr("node.swarm.access.MAX_ENTRIES", 3)
    access = AccessList(None, lambda: 1000.0)
    access.put(identity(1).peer_id, Verdict.BAN)
    access.put(identity(2).peer_id, Verdict.ALLOW, 10.0)
    for index in range(3, 9):
        access.put(identity(index).peer_id, Verdict.BAN, 60.0 + index)
    assert [entry.peer_id for entry in access.entries()] == [identity(index).peer_id for index in (1, 2, 8)]
    assert not access.is_banned(identity(7).curve_public_key) and access.is_banned(identity(8).curve_public_key)


def test_an_accusation_on_a_full_disk_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is accused issues a new record, whose number belongs on the disk: a peer can bring that about."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Node(NodeConfig(identity(1), LOOPBACK, threads=1, state=tmp_path), []) as node:
        assert node.address is not None and node.member is not None and node.member.record is not None
        before = node.member.record.seq
        monkeypatch.setattr("node.store.files.os.fsync", full)
        with RawClient(node.address.endpoint, node.peer_id, identity(2)) as client:
            client.say_hello()
            key, accuser = identity(1).public_key, identity(2).public_key
            client.send(Gossip((), (Claim(key, before, State.SUSPECT, accuser),)), 5)
            deadline = time.monotonic() + WAIT_S
            while node.member.record.seq == before:
                assert time.monotonic() < deadline, "it answers the accusation"
                time.sleep(0.01)
        with RawClient(node.address.endpoint, node.peer_id, identity(3)) as late:
            late.say_hello()
    assert "No space" in caplog.text
