"""A program that closes sockets with a message half sent while the other side resets the connection."""

from __future__ import annotations

import random
import socket as sockets
import struct
import threading
import time
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from node.transport.farewells import Farewells, own

CLOSINGS = 60
LINGER_MS = 20
HALF_SENT = [bytes(1 << 16)] * 512
RESET = struct.pack("ii", 1, 0)


def relay(one: sockets.socket, other: sockets.socket, until: threading.Event) -> None:
    """Pass bytes on; those that come after `until` are not read."""
    one.settimeout(0.01)
    while not until.is_set():
        try:
            other.sendall(one.recv(1 << 16))
        except TimeoutError:
            continue


def connected(dealer: zmq.Socket[bytes], front: sockets.socket, behind: int) -> tuple[sockets.socket, Any]:
    """Connect; the other end of the connection, which reads no more, and this one."""
    monitor = dealer.get_monitor_socket()
    port = front.getsockname()[1]
    dealer.connect(f"tcp://127.0.0.1:{port}")
    far, _address = front.accept()
    connection, shaken = None, threading.Event()
    with sockets.create_connection(("127.0.0.1", behind)) as router:
        relays = [threading.Thread(target=relay, args=(*pair, shaken)) for pair in ((far, router), (router, far))]
        for one in relays:
            one.start()
        while not shaken.is_set():
            event = parse_monitor_message(monitor.recv_multipart())
            if event["event"] == zmq.EVENT_CONNECTED:
                connection = own(int(event["value"]), port)
            elif event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                shaken.set()
        for one in relays:
            one.join()
    dealer.disable_monitor()
    monitor.close(linger=0)
    return far, connection


def reset(far: sockets.socket, at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))
    far.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, RESET)
    far.close()


def main() -> None:
    farewells, context = Farewells(), zmq.Context[zmq.Socket[bytes]]()
    router = context.socket(zmq.ROUTER)
    behind = router.bind_to_random_port("tcp://127.0.0.1")
    with sockets.create_server(("127.0.0.1", 0)) as front:
        for number in range(CLOSINGS):
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.IMMEDIATE, 1)
            dealer.setsockopt(zmq.RECONNECT_IVL, -1)
            far, connection = connected(dealer, front, behind)
            dealer.send_multipart(HALF_SENT)
            linger_ms = LINGER_MS * (number % 2)
            resetting = threading.Thread(
                target=reset, args=(far, time.monotonic() + linger_ms / 1000 + random.random() / 2000)
            )
            resetting.start()
            farewells.close(dealer, connection, linger_ms)
            resetting.join()
    farewells.stop()
    context.destroy(linger=0)
    print("alive")


if __name__ == "__main__":
    main()
