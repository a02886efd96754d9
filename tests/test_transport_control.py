"""Links between real sockets on loopback: who gets in, who is sent away, and that nothing a peer does ends a node."""

import asyncio
import contextlib
import errno
import gc
import itertools
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq
from live_nodes import LOOPBACK, WAIT_S, LiveNode, RawClient, RawListener, knock
from made_parts import identity
from msgspec.structs import replace
from waiting import until
from zmq.utils import z85

from node.errors import ConfigError, PeerRefusedError, TransportError
from node.transport import control, links, names
from node.transport.link import Pace
from node.transport.registry import DialState
from node.transport.sockets import SecureContext
from protocol import cbor
from protocol.codec import encode_message
from protocol.finding.dialback import DialBackResult, DialBackStatus
from protocol.identity import Identity
from protocol.limits import MAGIC, MAX_CONTROL_FRAME_BYTES
from protocol.link.hello import Hello, hello_ok
from protocol.link.messages import Attach, GoAway, Pong
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping
from protocol.multiaddr import Multiaddr

PLANES = ("control plane", "data plane")
REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_DISCONNECTED,
)


def planes() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in PLANES or "Auth" in type(thread).__name__]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No thread, and no socket: collecting an open one is a ResourceWarning, which is an error here."""
    assert not planes()
    yield
    assert not planes()
    gc.collect()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same life of a link, in tenths of a second."""
    monkeypatch.setattr(control, "DEFAULT_PACE", Pace(0.4, 0.1, 0.5, 0.02, 0.1))


def client_of(node: LiveNode, index: int = 7, mechanism: str = "curve") -> RawClient:
    assert node.address is not None
    return RawClient(node.address.endpoint, node.peer_id, identity(index), mechanism)


def still_serves(node: LiveNode) -> None:
    """A newcomer shakes hands and gets an answer."""
    with client_of(node, 99) as newcomer:
        newcomer.say_hello()
        newcomer.send(Ping(), 5)
        received = newcomer.receive()
        assert received is not None and isinstance(received.message, Pong) and received.id == 5


# --- handshakes


def test_two_nodes_know_each_other() -> None:
    with LiveNode(1) as listener:
        assert listener.address is not None
        with LiveNode(2, bootstrap=[listener.address]) as dialler:
            outcome = dialler.until_dialled(listener.address, DialState.UP)
            assert outcome.peer_id == listener.peer_id
            dialler.until_knows(listener.peer_id)
            listener.until_knows(dialler.peer_id)
            (known,) = dialler.registry.peers()
            assert known.data_endpoint == listener.data_endpoint
            assert known.dialled
            (known,) = listener.registry.peers()
            assert known.data_endpoint == dialler.data_endpoint
            assert not known.dialled


def test_a_round_trip_is_measured(quick: None) -> None:
    with LiveNode(1) as listener:
        assert listener.address is not None
        measured = threading.Event()
        dialler = LiveNode(2, bootstrap=[listener.address])
        dialler.registry.measured = lambda peer_id, rtt_s, queued: measured.set()  # type: ignore[method-assign]
        with dialler:
            assert measured.wait(5)


def test_another_peer_than_dialled_is_not_up(quick: None) -> None:
    with LiveNode(1) as listener:
        assert listener.address is not None
        wrong = listener.address.with_peer(identity(3).peer_id)
        with LiveNode(2, bootstrap=[wrong]) as dialler:
            outcome = dialler.until_dialled(wrong, DialState.UNREACHABLE)
            assert str(wrong) in outcome.reason
            assert not dialler.registry.peers()
            assert not listener.registry.peers()


def test_nobody_at_the_address(quick: None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = LOOPBACK.with_port(unused.getsockname()[1]).with_peer(identity(1).peer_id)
        with LiveNode(2, bootstrap=[address]) as dialler:
            assert "Connection refused" in dialler.until_dialled(address, DialState.UNREACHABLE).reason


def test_names_are_looked_up_beside_the_sockets(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer's record may hold names of which no server ever answers: nothing else waits for them."""
    over, looked = threading.Event(), []
    real = socket.getaddrinfo

    def slow(host: str, *rest: object) -> object:
        looked.append(host)
        if host.endswith(".example"):
            assert over.wait(10 * WAIT_S)
            raise socket.gaierror(-3, "no answer")
        return real(host, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("node.transport.names.socket.getaddrinfo", slow)
    named = [Multiaddr("dns4", f"slow{i}.example", 1, identity(50 + i).peer_id) for i in range(names.MAX_LOOKUPS)]
    users_own = Multiaddr("dns4", "own.example", 1, identity(60).peer_id)
    with LiveNode(1) as node:
        assert node.address is not None
        by_name = Multiaddr("dns4", "localhost", node.address.port, node.peer_id)
        with LiveNode(2, bootstrap=[users_own]) as dialler:
            assert "no name server answered" in dialler.until_dialled(users_own, DialState.UNREACHABLE).reason
            for address in named:
                dialler.control.dial(address)
            dialler.control.call(dialler.control.dials.keep, by_name)
            dialler.until_dialled(by_name, DialState.UP)
            assert dialler.registry.peers()[0].host == "127.0.0.1", "sessions dial what was found"
            further = Multiaddr("dns4", "further.example", 1, identity(70).peer_id)
            with pytest.raises(TransportError, match="other names"):
                asyncio.run(names.resolve(further, 1.0))
            dialler.until_knows(node.peer_id)
            over.set()
    assert "further.example" not in looked
    deadline = time.monotonic() + WAIT_S
    while any(thread.name == "name lookup" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_room_for_another_socket_ends_nothing_but_the_try(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Whoever has a thousand keys can have this node dial a thousand of its own."""
    with LiveNode(1) as node, LiveNode(2) as other, LiveNode(3) as third:
        assert other.address is not None and third.address is not None

        def full(_kind: int) -> None:
            raise zmq.ZMQError(errno.EMFILE)

        with monkeypatch.context() as crowded:
            crowded.setattr(node.control._context.sockets, "socket", full)
            node.control.call(node.control.dials.keep, third.address)
            assert "too many" in node.until_dialled(third.address, DialState.UNREACHABLE).reason
        node.control.dial(other.address)
        node.until_knows(other.peer_id)


def test_a_hello_under_another_key_is_refused() -> None:
    with LiveNode(1) as node, client_of(node) as client:
        client.send(replace(client.hello, public_key=identity(3).public_key))
        assert client.error().code == ErrorCode.UNAUTHENTICATED
        assert not node.registry.peers()
        client.send(replace(client.hello, public_key=bytes(32)))
        assert client.error().code == ErrorCode.INVALID
        client.say_hello()
        node.until_knows(client.identity.peer_id)


def test_the_twin_of_a_key_gets_no_second_name(quick: None) -> None:
    with LiveNode(1) as node:
        with client_of(node) as client:
            key = client.identity.public_key
            client.say_hello()
            client.send(replace(client.hello, public_key=key[:31] + bytes([key[31] ^ 0x80])))
            assert client.error().code == ErrorCode.UNAUTHENTICATED
            node.until_knows(client.identity.peer_id)
        node.until_knows()


def test_the_twin_of_a_key_gets_no_name_on_a_link_of_its_own() -> None:
    with LiveNode(1) as node, client_of(node) as client, client_of(node) as twin:
        key = client.identity.public_key
        client.say_hello()
        twin.send(replace(twin.hello, public_key=key[:31] + bytes([key[31] ^ 0x80])))
        assert twin.receive() is not None
        assert [peer.peer_id for peer in node.registry.peers()] == [client.identity.peer_id]
        known = node.registry.by_curve_key(client.identity.curve_public_key)
        assert known is not None and known.peer_id == client.identity.peer_id


@pytest.mark.parametrize("message", [Ping(), Pong(0), GoAway("x"), Cancel(1), Attach(), ErrorReply(1, "x")])
def test_nothing_counts_before_the_hello(message: Message) -> None:
    with LiveNode(1) as node, client_of(node) as client:
        client.send(message, 77)
        received = client.receive()
        assert received is not None
        assert received.id == 77
        assert isinstance(received.message, ErrorReply)
        assert received.message.code == ErrorCode.NO_SESSION
        client.send(hello_ok(client.hello))
        assert client.error().code == ErrorCode.NO_SESSION
        client.say_hello()


def test_another_version_is_refused_by_the_listener() -> None:
    with LiveNode(1) as node, client_of(node) as client:
        client.send(replace(client.hello, versions=(2, 3)))
        refusal = client.error()
        assert refusal.code == ErrorCode.PRECONDITION
        assert "kek/2, kek/3" in refusal.text
        assert "kek/1" in refusal.text
        assert not node.registry.peers()


def test_another_version_is_refused_by_the_dialler() -> None:
    with LiveNode(1, versions=(2,)) as listener:
        assert listener.address is not None
        with LiveNode(2, bootstrap=[listener.address]) as dialler:
            outcome = dialler.until_dialled(listener.address, DialState.REFUSED)
            assert "kek/2" in outcome.reason
            assert "kek/1" in outcome.reason
            assert not dialler.registry.peers()


def test_a_refusal_is_told_in_its_own_words() -> None:
    with RawListener(identity(1)) as listener, LiveNode(2, bootstrap=[listener.address]) as dialler:
        said = listener.receive(Hello)
        assert said is not None
        listener.send(said[0], ErrorReply(ErrorCode.PRECONDITION, "speaks kek/1, this node speaks kek/9"), 1)
        assert "kek/9" in dialler.until_dialled(listener.address, DialState.REFUSED).reason


@pytest.mark.parametrize("kind", ["another identity", "another version", "no hello"])
def test_an_answer_that_is_no_good_hello_is_refused(kind: str) -> None:
    with RawListener(identity(1)) as listener, LiveNode(2, bootstrap=[listener.address]) as dialler:
        said = listener.receive(Hello)
        assert said is not None
        answers: dict[str, Message] = {
            "another identity": replace(listener.hello_ok, public_key=identity(3).public_key),
            "another version": replace(listener.hello_ok, versions=(9,)),
            "no hello": Pong(1),
        }
        listener.send(said[0], answers[kind], 1)
        assert str(listener.address) in dialler.until_dialled(listener.address, DialState.REFUSED).reason
        assert not dialler.registry.peers()


# --- connections that are not even heard


@pytest.mark.parametrize("mechanism", ["null", "plain"])
@pytest.mark.parametrize("plane", ["control", "data"])
def test_other_mechanisms_are_refused(mechanism: str, plane: str) -> None:
    with LiveNode(1) as node:
        assert node.address is not None
        endpoint = node.address.endpoint if plane == "control" else node.data_endpoint
        knock(endpoint, node.peer_id, identity(7))
        with RawClient(endpoint, None, identity(7), mechanism, knocks=False) as client:
            client.until_event(*REFUSALS)
            assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in client.events
            assert not node.registry.peers()
        still_serves(node)


def test_who_expects_another_key_does_not_get_through() -> None:
    with LiveNode(1) as node:
        assert node.address is not None
        knock(node.address.endpoint, node.peer_id, identity(7))
        with RawClient(node.address.endpoint, identity(3).peer_id, identity(7), knocks=False) as client:
            client.until_event(*REFUSALS)
            assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in client.events
        still_serves(node)


planes_made = itertools.count(1)


def connects(secure: SecureContext, server: Identity, guarded: bool = True, domain: bytes | None = None) -> bool:
    """Whether a client with a good key that has knocked passes the handshake of a socket made by `listen`, or of one
    without guard. It does not go through the gate, which would not even let it begin."""
    router, door = secure.context.socket(zmq.ROUTER), secure.context.socket(zmq.ROUTER)
    bound = secure.listen(door, f"test {next(planes_made)}", LOOPBACK, 1024)
    if guarded:
        secure.listen(router, f"test {next(planes_made)}", LOOPBACK, 1024)
    else:
        router.curve_server = True
        router.curve_secretkey = z85.encode(server.curve_secret_key)
    if domain is not None:
        router.setsockopt(zmq.ZAP_DOMAIN, domain)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    knock(bound.endpoint, server.peer_id, identity(7))
    with RawClient(f"tcp://127.0.0.1:{port}", server.peer_id, identity(7), knocks=False) as client:
        event = client.until_event(zmq.EVENT_HANDSHAKE_SUCCEEDED, *REFUSALS)
    router.close(linger=0)
    door.close(linger=0)
    return event == zmq.EVENT_HANDSHAKE_SUCCEEDED


def test_without_its_guard_a_socket_lets_nobody_in() -> None:
    """The handler does not run: refused. The control: a socket that does not insist on one is open to everybody."""
    secure = SecureContext(identity(1))
    secure.gate.start()
    try:
        assert not connects(secure, identity(1))
        assert connects(secure, identity(1), guarded=False)
    finally:
        secure.context.destroy(linger=0)
        secure.gate.stop()


def test_only_our_domain_is_let_in() -> None:
    with SecureContext(identity(1)) as secure:
        assert connects(secure, identity(1))
        assert not connects(secure, identity(1), domain=b"other")


def test_a_banned_key_does_not_come_back() -> None:
    with LiveNode(1, banned=identity(7)) as node:
        assert node.address is not None
        with pytest.raises(PeerRefusedError, match="keeps this node out"):
            knock(node.address.endpoint, node.peer_id, identity(7))
        still_serves(node)


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
