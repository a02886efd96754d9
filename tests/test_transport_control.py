"""Links between real sockets on loopback: who gets in, who is sent away, and that nothing a peer does ends a node."""

import asyncio
import errno
import itertools
import socket
import threading
import time

import pytest
import zmq
from live_nodes import LOOPBACK, WAIT_S, LiveNode, RawClient, RawListener, client_of, knock, still_serves
from made_parts import identity
from msgspec.structs import replace
from zmq.utils import z85

from node.errors import PeerRefusedError, TransportError
from node.transport import names
from node.transport.registry import DialState
from node.transport.sockets import SecureContext
from protocol.identity import Identity
from protocol.link.hello import Hello, hello_ok
from protocol.link.messages import Attach, GoAway, Pong
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping
from protocol.multiaddr import Multiaddr

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_DISCONNECTED,
)


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
        node.control.dial(other.address)  # the third is dialled again too, and may come first
        node.until(lambda: other.peer_id in {peer.peer_id for peer in node.registry.peers()}, "knows the other")


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
