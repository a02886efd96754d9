"""What comes through a link, and links that come and go: nothing that a peer does ends a node."""

import asyncio
import contextlib
import resource
import socket
import threading
import time
from contextlib import ExitStack

import pytest
import zmq
from live_nodes import LOOPBACK, WAIT_S, LiveNode, RawClient, RawListener, client_of, planes, still_serves
from made_parts import identity
from waiting import until

from node.errors import ConfigError
from node.transport import control, links
from node.transport.registry import DialState
from protocol import cbor
from protocol.codec import encode_message
from protocol.finding.dialback import DialBackResult, DialBackStatus
from protocol.limits import MAGIC, MAX_CONTROL_FRAME_BYTES
from protocol.link.messages import GoAway
from protocol.message import ErrorCode, ErrorReply, Ping
from protocol.multiaddr import Multiaddr

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


# --- whatever comes through


def garbage() -> list[list[bytes]]:
    header = {0: 3, 1: 1, 4: {}}
    return [
        [b""],
        [b"", b""],
        [b"GET / HTTP/1.1"],
        [MAGIC],
        [MAGIC + b"\xff" * 100],
        [MAGIC + b"\x81" * 5000],
        [b"KEK\x02" + cbor.encode(header)],
        [MAGIC + cbor.encode(header), b"extra"],
        [MAGIC + cbor.encode({**header, 5: [[5, [0, 1 << 23, 1 << 23, 1 << 23], 0]]}), b""],
        [MAGIC + cbor.encode({**header, 5: [[1, [0], 0]] * 17}), *[b""] * 17],
        [MAGIC + cbor.encode({0: 1, 1: 1, 4: {}})],
        [b"\0" * MAX_CONTROL_FRAME_BYTES],
    ]


@pytest.mark.parametrize("after_hello", [False, True])
def test_garbage_is_dropped(after_hello: bool) -> None:
    with LiveNode(1) as node, client_of(node) as client:
        if after_hello:
            client.say_hello()
        for frames in garbage():
            client.send_frames(frames)
        client.say_hello()
        still_serves(node)


def test_garbage_on_a_dialled_link_ends_the_link_alone(quick: None) -> None:
    with RawListener(identity(1)) as listener, LiveNode(2, bootstrap=[listener.address]) as node:
        for frames in [*garbage(), encode_message(listener.hello_ok, 1)]:
            route = listener.accept()
            node.until_dialled(listener.address, DialState.UP)
            listener.socket.send_multipart([route, *frames])
            reason = node.until_dialled(listener.address, DialState.UNREACHABLE).reason
            assert "broke the protocol" in reason
        listener.accept()
        node.until_dialled(listener.address, DialState.UP)
        still_serves(node)


def test_an_unknown_message_is_answered_either_way() -> None:
    unknown = MAGIC + cbor.encode({0: 4321, 1: 55, 4: {}})
    with LiveNode(1) as node, client_of(node) as client:
        client.say_hello()
        client.send_frames([unknown])
        received = client.receive()
        assert received is not None and received.id == 55
        assert isinstance(received.message, ErrorReply)
        assert received.message.code == ErrorCode.UNIMPLEMENTED
    with RawListener(identity(1)) as listener, LiveNode(2, bootstrap=[listener.address]) as node:
        route = listener.accept()
        listener.socket.send_multipart([route, unknown])
        said = listener.receive(ErrorReply)
        assert said is not None and said[1].id == 55
        assert said[1].message.code == ErrorCode.UNIMPLEMENTED  # type: ignore[union-attr]
        node.until_knows(listener.identity.peer_id)


def test_a_frame_that_is_too_large_costs_the_connection_only() -> None:
    with LiveNode(1) as node, client_of(node) as client:
        client.say_hello()
        client.send_frames([b"\0" * (MAX_CONTROL_FRAME_BYTES + 1)])
        client.until_event(zmq.EVENT_DISCONNECTED)
        still_serves(node)


def test_strangers_without_a_hello_keep_no_member_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key costs nothing: whoever fills the table of links with knocks makes way for the next."""
    monkeypatch.setattr("node.transport.listener.MAX_LINKS_A_HOST", 3)
    with LiveNode(1) as node, contextlib.ExitStack() as stack:
        assert node.address is not None
        member = stack.enter_context(RawClient(node.address.endpoint, node.peer_id, identity(9)))
        member.say_hello()
        for index in range(10, 16):
            stranger = stack.enter_context(RawClient(node.address.endpoint, node.peer_id, identity(index)))
            stranger.send(Ping())
            assert stranger.error().code == ErrorCode.NO_SESSION
        late = stack.enter_context(RawClient(node.address.endpoint, node.peer_id, identity(8)))
        late.say_hello()
        node.until_knows(identity(8).peer_id, identity(9).peer_id)


def test_hints_are_dialled_few_at_a_time(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Anybody in the local network can announce any address: a flood of that must not be a flood of dials."""
    monkeypatch.setattr(control, "MAX_HINTS_TRIED", 2)
    with LiveNode(1) as node, LiveNode(2) as other, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        nobody = LOOPBACK.with_port(silent.getsockname()[1])
        dialled: list[Multiaddr] = []
        once = node.control.dials.once
        monkeypatch.setattr(node.control.dials, "once", lambda found, end: (dialled.extend(found), once(found, end)))
        for index in range(50):
            for _ in range(3):
                node.control.dial_hint(nobody.with_peer(identity(index + 100).peer_id))
        assert other.address is not None
        node.control.dial(other.address)
        node.until_knows(other.peer_id)
        assert dialled == [nobody.with_peer(identity(index).peer_id) for index in (100, 101)] + [other.address]


def test_half_open_connections_keep_nobody_out() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(1000, max(50, (limit - 300) // 2))
    with LiveNode(1) as node, contextlib.ExitStack() as opened:
        assert node.address is not None
        for index in range(count):
            raw = opened.enter_context(socket.create_connection(("127.0.0.1", node.address.port), timeout=5))
            if index % 3 == 0:
                raw.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"[: index % 11])
        still_serves(node)


@pytest.mark.parametrize("plane", ["control", "data"])
def test_who_floods_is_not_alone_with_the_node(plane: str) -> None:
    node = LiveNode(1)
    with node:
        assert node.address is not None
        endpoint = node.address.endpoint if plane == "control" else node.data_endpoint
        over = threading.Event()
        began = threading.Event()

        def flood() -> None:
            with RawClient(endpoint, node.peer_id, identity(7)) as client:
                frames = encode_message(Ping(), 1)
                while not over.is_set():
                    with contextlib.suppress(zmq.Again):
                        client.socket.send_multipart(frames, zmq.DONTWAIT)
                        began.set()

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            assert began.wait(5)
            still_serves(node)
            started = time.monotonic()
            node.control.stop()
            assert time.monotonic() - started < 3
        finally:
            over.set()
            flooding.join()


# --- comings and goings


def test_who_leaves_says_so() -> None:
    with LiveNode(1) as listener:
        assert listener.address is not None
        with LiveNode(2, bootstrap=[listener.address]) as dialler:
            listener.until_knows(dialler.peer_id)
        started = time.monotonic()
        listener.until_knows()
        assert time.monotonic() - started < control.DEFAULT_PACE.silence_limit_s / 2
    with LiveNode(3) as listener:
        assert listener.address is not None
        with LiveNode(2, bootstrap=[listener.address]) as dialler:
            dialler.until_knows(listener.peer_id)
            listener.control.stop("good night")
            assert "good night" in dialler.until_dialled(listener.address, DialState.UNREACHABLE).reason
            dialler.until_knows()


def test_who_falls_silent_is_forgotten(quick: None) -> None:
    with LiveNode(1) as node, client_of(node) as client:
        client.say_hello()
        node.until_knows(client.identity.peer_id)
        node.until_knows()
        client.send(Ping(), 9)
        assert client.error().code == ErrorCode.NO_SESSION
    with RawListener(identity(1)) as listener, LiveNode(2, bootstrap=[listener.address]) as node:
        listener.accept()
        node.until_dialled(listener.address, DialState.UP)
        assert "silent" in node.until_dialled(listener.address, DialState.UNREACHABLE).reason


def test_a_listener_that_was_restarted_is_found_again(quick: None) -> None:
    first = LiveNode(1)
    with first:
        address = first.address
        assert address is not None
        dialler = LiveNode(2, bootstrap=[address])
        dialler.__enter__()
        dialler.until_dialled(address, DialState.UP)
    try:
        dialler.until_knows()
        with LiveNode(1, listen=LOOPBACK.with_port(address.port)) as second:
            dialler.until_dialled(address, DialState.UP)
            dialler.until_knows(second.peer_id)
            second.until_knows(dialler.peer_id)
    finally:
        dialler.__exit__()


def test_a_listener_that_forgot_is_greeted_again(quick: None) -> None:
    with RawListener(identity(1)) as listener, LiveNode(2, bootstrap=[listener.address]) as node:
        route = listener.accept()
        node.until_dialled(listener.address, DialState.UP)
        listener.send(route, ErrorReply(ErrorCode.NO_SESSION, "who are you"), 2)
        assert "restarted" in node.until_dialled(listener.address, DialState.UNREACHABLE).reason
        listener.accept()
        node.until_dialled(listener.address, DialState.UP)


def test_a_peer_with_two_links_survives_the_loss_of_one(quick: None) -> None:
    peer = identity(1)
    with RawListener(peer) as listener, LiveNode(2, bootstrap=[listener.address]) as node:
        route = listener.accept()
        node.until_dialled(listener.address, DialState.UP)
        assert node.address is not None
        with RawClient(node.address.endpoint, node.peer_id, peer) as client:
            client.say_hello()
            listener.send(route, GoAway("this way is closed"))
            node.until_dialled(listener.address, DialState.UNREACHABLE)
            assert [known.peer_id for known in node.registry.peers()] == [peer.peer_id]


def test_of_two_devices_with_one_identity_the_one_that_stays_is_used(
    quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(links, "TWO_DEVICES_S", 0.3)
    with LiveNode(1) as node, ExitStack() as rest:
        assert node.address is not None
        first = rest.enter_context(LiveNode(2, bootstrap=[node.address]))
        node.until_knows(first.peer_id)
        with LiveNode(2, bootstrap=[node.address]) as second:
            node.until(lambda: {each.hello.data_port for each in node.registry.peers()} == {second.data_port}, "both")
            until(lambda: node.registry.doubles == {first.peer_id: ("127.0.0.1",)}, "somebody says so")
            assert f"two devices have the identity {first.peer_id}" in caplog.text
        node.until(
            lambda: {each.hello.data_port for each in node.registry.usable()} == {first.data_port}, "one stays"
        )
        assert not node.registry.is_leaving(first.peer_id)
        until(lambda: not node.registry.doubles, "there is one left")
        rest.close()
        node.until_knows()
        assert node.registry.is_leaving(first.peer_id), "what it was asked is still answered"


def test_whoever_dials_back_and_hangs_up_does_not_leave(quick: None) -> None:
    with LiveNode(1) as helper, LiveNode(2, bootstrap=[helper.address] if helper.address else []) as asker:
        asker.until_knows(helper.peer_id)
        came_in = threading.Event()
        down = asker.control.links.down
        asker.control.links.down = lambda link: (down(link), came_in.set())[0]  # type: ignore[method-assign]
        assert asker.address is not None and helper.control._loop is not None
        dial_back = helper.control.dials.deliver(asker.address, DialBackResult(bytes(16), DialBackStatus.REACHED))
        asyncio.run_coroutine_threadsafe(dial_back, helper.control._loop).result(WAIT_S)
        assert came_in.wait(WAIT_S), "the second connection ended"
        assert [peer.peer_id for peer in asker.registry.usable()] == [helper.peer_id]


# --- the end of a node


@pytest.mark.parametrize("kind", ["idle", "linked", "dialling nobody", "dialling two"])
def test_a_node_leaves_within_three_seconds(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused, LiveNode(1) as other:
        unused.bind(("127.0.0.1", 0))
        assert other.address is not None
        nobody = LOOPBACK.with_port(unused.getsockname()[1]).with_peer(identity(3).peer_id)
        bootstrap: dict[str, list[Multiaddr]] = {
            "idle": [],
            "linked": [other.address],
            "dialling nobody": [nobody],
            "dialling two": [nobody, other.address],
        }
        with LiveNode(2, bootstrap=bootstrap[kind]) as node:
            if other.address in bootstrap[kind]:
                other.until_knows(node.peer_id)
            started = time.monotonic()
        assert time.monotonic() - started < 3
        other.until_knows()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_port_in_use_is_one_sentence_and_leaves_nothing() -> None:
    with LiveNode(1) as first:
        assert first.address is not None
        with pytest.raises(ConfigError, match="in use"), LiveNode(2, listen=LOOPBACK.with_port(first.address.port)):
            pass
        assert len(planes()) == 3


def test_stopping_twice_and_never_starting_are_no_errors() -> None:
    node = LiveNode(1)
    node.control.stop()
    with node:
        node.control.stop()
        node.control.stop()
