"""Nodes on loopback without a model on disk, and raw ends of a connection that keep no promise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

import zmq
from made_parts import KERNELS, MODEL_ID, identity, weights_of
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from node.model.unit import Unit
from node.serving.data_plane import DataPlane
from node.serving.worker import LinearWorker
from node.transport.control import ControlPlane
from node.transport.farewells import PATIENCE_MS
from node.transport.knock import Knocks
from node.transport.registry import DialOutcome, DialState, PeerRegistry
from node.transport.sockets import SecureContext
from protocol.codec import Received, decode_message, encode_message
from protocol.envelope import Frame
from protocol.identity import Identity, PeerId, curve_public_key_of, public_key_of
from protocol.limits import MAX_CONTROL_FRAME_BYTES, PROTOCOL_VERSION
from protocol.link.admission import SwarmKey
from protocol.link.hello import Hello, HelloOk, HostedModel
from protocol.link.messages import Pong
from protocol.message import ErrorReply, Message, Ping
from protocol.multiaddr import Multiaddr, parse_multiaddr

LOOPBACK = parse_multiaddr("/ip4/127.0.0.1/tcp/0")
PLANES = ("control plane", "data plane")
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
            self.data.offer(peer_id, peer.host, peer.hello.data_port)

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


def knock(endpoint: str, server: PeerId, me: Identity, swarm: SwarmKey | None = None) -> None:
    """Be let in at a ZeroMQ endpoint; raises what `Knocks.knock` does."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    knocks = Knocks(me, swarm)
    knocks.start()
    try:
        knocks.knock(server, host, int(port)).result(WAIT_S)
    finally:
        knocks.stop()


class RawClient:
    """A DEALER that sends whatever it is told to; a context manager.

    Args:
        knocks: whether it asks to be let in first, at the door of `server`, as a member.
    """

    def __init__(
        self,
        endpoint: str,
        server: PeerId | None,
        me: Identity,
        mechanism: str = "curve",
        knocks: bool = True,
        swarm: SwarmKey | None = None,
    ) -> None:
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
        if knocks:
            assert server is not None
            knock(endpoint, server, me, swarm)
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
        bound = self.secure.listen(self.socket, "control", LOOPBACK, 1 << 24)
        self.address = bound.with_peer(self.identity.peer_id)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close(linger=PATIENCE_MS)  # the gate ends the connections sooner
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


def planes() -> list[threading.Thread]:
    """Threads of nodes that run in this process."""
    return [thread for thread in threading.enumerate() if thread.name in PLANES or "Auth" in type(thread).__name__]
