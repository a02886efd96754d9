"""The gate: strangers cost little, a proof lets a member in for one connection, and the ROUTER meets nobody else."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import zmq
from live_nodes import LOOPBACK, WAIT_S, RawClient, knock
from made_parts import identity

from node.errors import PeerRefusedError, TransportError
from node.transport import gate as gates
from node.transport.admissions import GRANT_S, MAX_GRANTS_A_HOST, MAX_REFUSED, REFUSED_S, Admissions
from node.transport.gate import Gate
from node.transport.sockets import SecureContext
from node.transport.stranger import Entry, Phase, Stranger, StrangerEnded
from protocol.limits import MAX_DATA_BYTES
from protocol.link.admission import SwarmKey
from protocol.link.door import (
    ANSWER_BYTES,
    CHALLENGE_BYTES,
    KEY_PROOF_BYTES,
    KNOCK_BYTES,
    DoorStatus,
    Knock,
    door_box,
)
from protocol.link.zmtp import MAX_CLIENT_HANDSHAKE_BYTES

SWARM = SwarmKey(bytes(range(32)))
HOME, MEMBER = identity(1), identity(2)
RESET = b"\1\0\0\0\0\0\0\0"


class Guarded:
    """A ROUTER behind a gate, with a thread that echoes."""

    def __init__(self) -> None:
        self.banned: set[bytes] = set()
        self.secure = SecureContext(HOME, lambda key: key in self.banned, SWARM)
        self.over = threading.Event()

    @property
    def gate(self) -> Gate:
        return self.secure.gate

    def __enter__(self) -> "Guarded":
        self.secure.__enter__()
        self.router = self.secure.context.socket(zmq.ROUTER)
        self.endpoint = self.secure.listen(self.router, "test", LOOPBACK, MAX_DATA_BYTES).endpoint
        self.port = int(self.endpoint.rpartition(":")[2])
        self.routes = self.gate.routes()
        self.hosts: list[str] = []
        self.thread = threading.Thread(target=self._echo)
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.over.set()
        self.thread.join()
        self.router.close(linger=0)
        self.secure.__exit__()

    def _echo(self) -> None:
        while not self.over.is_set():
            if self.router.poll(20):
                route, *frames = self.router.recv_multipart(copy=False)
                caller = self.routes.took(bytes(route.buffer), frames)
                self.hosts.append("" if caller is None else caller.host)
                with contextlib.suppress(zmq.ZMQError):
                    self.router.send_multipart([route, *frames])

    def client(self, knocks: bool = True) -> RawClient:
        return RawClient(self.endpoint, HOME.peer_id, MEMBER, knocks=knocks, swarm=SWARM)

    def stranger(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with Guarded() as made:
        yield made


def is_served(client: RawClient) -> None:
    client.send_frames([b"hello"])
    assert client.socket.poll(int(1000 * WAIT_S))
    assert client.socket.recv_multipart() == [b"hello"]


def hangs_up(connection: socket.socket) -> bytes:
    """What it says before it hangs up on us."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(4096):
            said += part
    return said


def test_who_knocked_is_served_and_traced(guarded: Guarded) -> None:
    with guarded.client() as client:
        is_served(client)
    assert guarded.hosts == ["127.0.0.1"]


def test_who_has_not_knocked_never_reaches_the_router(guarded: Guarded) -> None:
    with guarded.client(knocks=False) as client:
        client.until_event(zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in client.events
    assert not list(guarded.gate._folder.glob("[0-9]*")) and len(guarded.gate.callers) == 0


def test_a_proof_lets_one_connection_in(guarded: Guarded) -> None:
    with guarded.client() as first:
        is_served(first)
        second = guarded.client(knocks=False)
    with second:
        second.until_event(zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in second.events


def test_a_proof_is_worth_nothing_to_another_key(guarded: Guarded) -> None:
    knock(guarded.endpoint, HOME.peer_id, MEMBER, SWARM)
    with RawClient(guarded.endpoint, HOME.peer_id, identity(3), knocks=False) as thief:
        thief.until_event(zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_DISCONNECTED)
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in thief.events
    with guarded.client() as client:
        is_served(client)


def test_another_key_and_the_banned_are_told_no_more_than_that(guarded: Guarded) -> None:
    with pytest.raises(PeerRefusedError, match="another swarm") as refused:
        knock(guarded.endpoint, HOME.peer_id, MEMBER, SwarmKey(bytes(32)))
    assert SWARM.name not in str(refused.value)
    guarded.banned.add(MEMBER.curve_public_key)
    with pytest.raises(PeerRefusedError, match="keeps this node out"):
        knock(guarded.endpoint, HOME.peer_id, MEMBER, SWARM)
    with pytest.raises(TransportError, match="another node"):
        knock(guarded.endpoint, identity(4).peer_id, identity(5), SWARM)


def test_a_recorded_knock_opens_nothing(guarded: Guarded) -> None:
    """Whoever listened on the way says the same again: the challenge is another one."""
    said = Knock(door_box(SWARM), MEMBER.public_key, HOME.public_key, b"n" * 32)
    with guarded.stranger() as heard:
        heard.sendall(said.first())
        proof = said.proof(heard.recv(CHALLENGE_BYTES), b"b" * 24)
        heard.sendall(proof)
        assert hangs_up(heard)[0] == DoorStatus.OPEN
    with guarded.stranger() as again:
        again.sendall(said.first())
        assert len(again.recv(CHALLENGE_BYTES)) == CHALLENGE_BYTES
        again.sendall(proof)
        assert hangs_up(again) == bytes([DoorStatus.OTHER_KEY]) + bytes(ANSWER_BYTES - 1)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"KEKD\x02" + bytes(32), b"\0" * 64, b"\xff" + bytes(63), b"KEKX"]
)
def test_whoever_says_something_else_is_hung_up_on(guarded: Guarded, said: bytes) -> None:
    with guarded.stranger() as stranger:
        stranger.sendall(said)
        assert hangs_up(stranger) == b""


def test_a_knock_that_dawdles_ends(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "STRANGER_LIMIT_S", 0.2)
    with guarded.stranger() as silent, guarded.stranger() as half:
        half.sendall(b"KEKD\x01" + bytes(KNOCK_BYTES - 5) + bytes(KEY_PROOF_BYTES - 1))
        assert hangs_up(silent) == b""
        assert len(hangs_up(half)) == CHALLENGE_BYTES


def test_more_than_a_handshake_is_not_passed_on(guarded: Guarded) -> None:
    """A member's proof opens the way for a handshake: what claims to be one of 8 MiB is cut off after 2 KiB."""
    knock(guarded.endpoint, HOME.peer_id, MEMBER, SWARM)
    claimed = b"x" * MAX_DATA_BYTES  # this process's memory, too: it is there before and after
    before = psutil.Process().memory_info().rss
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\0" + bytes(31)
    with guarded.stranger() as stranger:
        stranger.sendall(greeting + b"\x06" + MAX_DATA_BYTES.to_bytes(8, "big"))
        with contextlib.suppress(OSError):
            stranger.sendall(claimed)
        hangs_up(stranger)
    assert psutil.Process().memory_info().rss - before < MAX_DATA_BYTES // 2
    with guarded.client() as client:
        is_served(client)


def test_a_handshake_is_passed_on_up_to_its_bound() -> None:
    house: Any = None  # a connection that was let in asks it nothing more
    outer, dialler = socket.socketpair()
    inner, router = socket.socketpair()
    with outer, dialler, inner, router:
        stranger = Stranger(outer, "192.0.2.1", 0.0, Phase.CURVE, Entry(inner, 1, bytes(32)))
        dialler.sendall(bytes(MAX_CLIENT_HANDSHAKE_BYTES))
        stranger.heard(house)
        assert len(router.recv(1 << 16)) == MAX_CLIENT_HANDSHAKE_BYTES
        dialler.sendall(b"x")
        with pytest.raises(StrangerEnded, match="more than a handshake"):
            stranger.heard(house)
        router.setblocking(False)
        with pytest.raises(BlockingIOError):
            router.recv(1)


def test_a_crowd_of_strangers_keeps_no_member_out(guarded: Guarded) -> None:
    with contextlib.ExitStack() as crowd:
        for index in range(300):
            stranger = crowd.enter_context(guarded.stranger())
            if index % 3:
                stranger.sendall(b"KEKD\x01"[: index % 6])
        with guarded.client() as client:
            is_served(client)
        assert len(guarded.gate._strangers) <= gates.MAX_STRANGERS


def test_a_flood_of_strangers_takes_a_small_share_of_the_time(guarded: Guarded) -> None:
    """Processor time of the gate's thread while others connect as fast as they can, against the share it may use."""
    over, made = threading.Event(), []

    def flood() -> None:
        while not over.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", guarded.port), timeout=0.2) as one,
            ):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.sendall(b"\xff" * 10)
                made.append(1)

    thread_id = guarded.gate._thread.native_id  # type: ignore[union-attr]
    flooding = [threading.Thread(target=flood) for _ in range(4)]
    started, used = time.monotonic(), _thread_s(thread_id)
    for each in flooding:
        each.start()
    over.wait(2.0)
    share = (_thread_s(thread_id) - used - gates.STRANGERS_BURST_S) / (time.monotonic() - started)
    over.set()
    for each in flooding:
        each.join()
    assert len(made) > 200, "it was a flood"
    assert share < 2 * gates.STRANGERS_SHARE


def _thread_s(thread_id: int | None) -> float:
    threads = {each.id: each for each in psutil.Process().threads()}
    return threads[thread_id].user_time + threads[thread_id].system_time  # type: ignore[index]


def test_a_message_without_an_end_ends_its_connection(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq gives no message before its last frame and bounds their number by nothing."""
    with guarded.client() as client, guarded.client() as honest:
        is_served(client)
        before = psutil.Process().memory_info().rss
        client.socket.sndtimeo = int(1000 * WAIT_S)
        frame = bytes(4 << 20)
        with contextlib.suppress(zmq.ZMQError):
            for _ in range(100):
                client.socket.send(frame, zmq.SNDMORE)
        client.socket.send(b"")
        client.until_event(zmq.EVENT_DISCONNECTED)
        is_served(honest)
        # The sender of this test holds what it has not sent yet in the same process.
        assert psutil.Process().memory_info().rss - before < 100 * len(frame) + 2 * gates.MAX_UNREAD_BYTES


def test_no_descriptor_is_a_pause_not_an_end(guarded: Guarded) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with guarded.client() as client:
        is_served(client)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        waiting = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
        try:
            filled = []
            with contextlib.suppress(OSError):
                while True:
                    filled.append(os.dup(0))
            waiting.connect(("127.0.0.1", guarded.port))
            is_served(client)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in filled:
                os.close(descriptor)
            waiting.close()
        with guarded.client() as late:
            is_served(late)


def test_grants_are_bounded_used_once_and_run_out() -> None:
    admissions = Admissions()
    for index in range(MAX_GRANTS_A_HOST):
        assert admissions.grant("data", "127.0.0.1", bytes([index]), 0.0)
    assert not admissions.grant("data", "127.0.0.1", b"late", 1.0)
    assert admissions.grant("data", "127.0.0.2", b"other", 1.0)
    assert admissions.enter("control", "127.0.0.2", 1.0) is None
    assert admissions.enter("data", "127.0.0.2", 1.0) == b"other"
    assert admissions.enter("data", "127.0.0.2", 1.0) is None
    assert admissions.admits(b"other", 1.0) and not admissions.admits(b"late", 1.0)
    assert admissions.enter("data", "127.0.0.1", GRANT_S) is None
    assert not admissions.admits(bytes([0]), GRANT_S)
    assert admissions.grant("data", "127.0.0.1", b"late", GRANT_S)


def test_a_refused_key_opens_nothing_for_a_while_and_others_do() -> None:
    admissions = Admissions()
    assert admissions.grant("data", "127.0.0.1", b"bad", 0.0)
    admissions.refuse(b"bad", 0.0)
    assert not admissions.admits(b"bad", 0.0), "a grant given before is void"
    assert not admissions.grant("control", "127.0.0.1", b"bad", REFUSED_S - 0.1)
    assert admissions.grant("data", "127.0.0.1", b"good", 0.0) and admissions.admits(b"good", 0.0)
    assert admissions.grant("data", "127.0.0.1", b"bad", REFUSED_S) and admissions.admits(b"bad", REFUSED_S)
    for number in range(MAX_REFUSED + 1):
        admissions.refuse(number.to_bytes(2), REFUSED_S)
    assert admissions.grant("data", "127.0.0.1", (0).to_bytes(2), REFUSED_S), "the first was forgotten"
    assert not admissions.grant("data", "127.0.0.1", (1).to_bytes(2), REFUSED_S)
