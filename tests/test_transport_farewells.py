"""Connections end only after their sockets."""

from __future__ import annotations

import os
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from node.transport.farewells import Farewells, own

PATIENCE_S = 10.0


def test_no_reset_ends_a_process_that_gives_up_a_half_sent_message() -> None:
    """With linger alone, libzmq 4.3.5 aborted in each of four runs of this program (session_base.cpp:233)."""
    run = subprocess.run([sys.executable, "-m", "tests.closings"], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "alive\n", "")


@pytest.fixture
def dealer() -> Iterator[tuple[zmq.Socket[bytes], sockets.socket, sockets.socket]]:
    """A connected socket, its connection, and the other end of it, at which nobody speaks ZMTP."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    monitor = socket.get_monitor_socket(zmq.EVENT_CONNECTED)
    with sockets.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.connect(f"tcp://127.0.0.1:{port}")
        far, _address = server.accept()
        connection = own(int(parse_monitor_message(monitor.recv_multipart())["value"]), port)
    assert connection is not None
    far.settimeout(PATIENCE_S)
    socket.disable_monitor()
    monitor.close(linger=0)
    with far:
        yield socket, connection, far
    context.destroy(linger=0)


def until_end_s(far: sockets.socket) -> float:
    started = time.monotonic()
    while far.recv(1 << 16):
        pass
    return time.monotonic() - started


@pytest.mark.parametrize("linger_ms", [0, 300])
def test_the_connection_ends_in_its_time(
    dealer: tuple[zmq.Socket[bytes], sockets.socket, sockets.socket], linger_ms: int
) -> None:
    socket, connection, far = dealer
    farewells = Farewells()
    farewells.close(socket, connection, linger_ms)
    assert socket.closed
    assert until_end_s(far) >= 0.8 * linger_ms / 1000
    farewells.stop()
    assert connection.fileno() == -1


def test_after_the_stop_nothing_lingers(dealer: tuple[zmq.Socket[bytes], sockets.socket, sockets.socket]) -> None:
    socket, connection, far = dealer
    farewells = Farewells()
    farewells.stop()
    farewells.close(socket, connection, 3_600_000)
    until_end_s(far)


def test_a_descriptor_that_is_another_things_by_now_is_left_alone() -> None:
    with sockets.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with sockets.create_connection(("127.0.0.1", port)) as one:
            owned = own(one.fileno(), port)
            assert owned is not None and owned.getpeername()[1] == port
            owned.close()
            assert own(one.fileno(), port + 1) is None
            server.accept()[0].close()
        assert own(server.fileno(), port) is None
    reading, writing = os.pipe()
    assert own(reading, port) is None
    os.close(reading)
    os.close(writing)
    assert own(reading, port) is None
