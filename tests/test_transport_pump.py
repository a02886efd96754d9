"""Both pumps pass on every byte, both ways, in order, and end a pair as a connection ends."""

import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from node.transport.portable_pump import PortablePump
from node.transport.pump import NativePump, Pump, new_pump

MAX_UNREAD_BYTES = 1 << 20
WAIT_S = 5.0


@pytest.fixture(params=["native", "portable"])
def pump(request: pytest.FixtureRequest) -> Iterator[Pump]:
    made = new_pump(MAX_UNREAD_BYTES) if request.param == "native" else PortablePump(MAX_UNREAD_BYTES)
    if request.param == "native" and not isinstance(made, NativePump):
        pytest.skip("no compiler was at hand when this was installed")
    made.start()
    yield made
    made.stop()


class Joined:
    """A peer and a ROUTER's side, joined by the pump."""

    def __init__(self, pump: Pump) -> None:
        self.peer, outer = socket.socketpair()
        self.router, inner = socket.socketpair()
        for end in (outer, inner):
            end.setblocking(False)
        for end in (self.peer, self.router):
            end.settimeout(WAIT_S)
        self.id = pump.add(outer, inner)

    def close(self) -> None:
        self.peer.close()
        self.router.close()


def receive(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (part := source.recv(1 << 16)):
        data += part
    return bytes(data)


def until_ended(pump: Pump, pair_id: int) -> None:
    deadline = time.monotonic() + WAIT_S
    ended: list[int] = []
    while pair_id not in ended:
        assert select.select([pump.news_fd], [], [], max(0, deadline - time.monotonic()))[0], "the pair ends"
        os.eventfd_read(pump.news_fd)
        ended += pump.ended()


def test_bytes_go_both_ways(pump: Pump) -> None:
    pairs = [Joined(pump) for _ in range(20)]
    for number, pair in enumerate(pairs):
        pair.peer.sendall(b"to the router %d" % number)
        pair.router.sendall(b"to the peer %d" % number)
    for number, pair in enumerate(pairs):
        assert pair.router.recv(100) == b"to the router %d" % number
        assert pair.peer.recv(100) == b"to the peer %d" % number
        pair.close()
        until_ended(pump, pair.id)


def test_more_than_any_buffer_holds_arrives_whole(pump: Pump) -> None:
    """The reader begins late: what does not fit waits at the sender, not in the pump."""
    pair, data = Joined(pump), os.urandom(8 << 20)
    sender = threading.Thread(target=pair.router.sendall, args=(data,))
    sender.start()
    sender.join(0.05)
    assert sender.is_alive(), "nobody took it yet, so it is not all sent"
    assert receive(pair.peer, len(data)) == data
    sender.join()
    pair.close()


def test_the_end_of_one_side_is_passed_on_behind_its_last_byte(pump: Pump) -> None:
    pair = Joined(pump)
    pair.router.sendall(b"goodbye")
    pair.router.close()
    assert receive(pair.peer, 100) == b"goodbye"
    pair.peer.close()
    until_ended(pump, pair.id)


def test_who_resets_is_ended(pump: Pump) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        outer, _address = listening.accept()
    router, inner = socket.socketpair()
    outer.setblocking(False)
    inner.setblocking(False)
    pair_id = pump.add(outer, inner)
    peer.sendall(b"x")
    assert router.recv(1) == b"x"
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    router.settimeout(WAIT_S)
    assert router.recv(1) == b""
    router.close()
    until_ended(pump, pair_id)


def test_what_nobody_reads_is_bounded(pump: Pump) -> None:
    """The ROUTER takes bytes in and its reader accounts for none of them: a message without an end."""
    pair = Joined(pump)
    sender = threading.Thread(target=_send_for_ever, args=(pair.peer,))
    sender.start()
    taken = len(receive(pair.router, 1 << 30))
    assert MAX_UNREAD_BYTES <= taken <= MAX_UNREAD_BYTES + (1 << 16)
    sender.join(WAIT_S)
    until_ended(pump, pair.id)
    pair.close()


def test_what_is_accounted_for_may_go_on(pump: Pump) -> None:
    pair = Joined(pump)
    part = 1 << 16
    for _ in range(4 * MAX_UNREAD_BYTES // part):
        pair.peer.sendall(bytes(part))
        assert len(receive(pair.router, part)) == part
        pump.read(pair.id, part)
    pair.close()
    until_ended(pump, pair.id)


def test_a_pair_can_be_ended_from_outside(pump: Pump) -> None:
    kept, ended = Joined(pump), Joined(pump)
    pump.close(ended.id)
    until_ended(pump, ended.id)
    assert ended.peer.recv(1) == b"" and ended.router.recv(1) == b""
    pump.close(ended.id)
    kept.peer.sendall(b"still here")
    assert kept.router.recv(100) == b"still here"
    kept.close()
    ended.close()


def _send_for_ever(to: socket.socket) -> None:
    try:
        while True:
            to.sendall(bytes(1 << 16))
    except OSError:
        return
