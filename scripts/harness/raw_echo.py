"""Answers every message of a CURVE ROUTER with as many bytes as were asked for: the least that an exchange costs.

A program: prints its port and its public key, then answers until its stdin ends. A request is the size of the answer
in 8 bytes, and padding; the answer has the two frames that a result has.
"""

from __future__ import annotations

import os
import sys

import zmq

HEADER_BYTES = 64


def answer_for_ever() -> None:
    """Serve one connection after the other, in one thread, without a look at the messages."""
    context = zmq.Context(1)
    router = context.socket(zmq.ROUTER)
    public, secret = zmq.curve_keypair()
    router.curve_server, router.curve_publickey, router.curve_secretkey = True, public, secret
    port = router.bind_to_random_port("tcp://127.0.0.1")
    print(port, public.decode(), flush=True)
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    zeros = bytes(64 << 20)
    while True:
        for one, _event in poller.poll():
            if one is not router:
                if not os.read(sys.stdin.fileno(), 1):
                    return
                continue
            route, header, _payload = router.recv_multipart(copy=False)
            size = int.from_bytes(bytes(header.buffer)[:8], "little")
            router.send_multipart([route, zeros[:HEADER_BYTES], memoryview(zeros)[:size]], copy=False)


if __name__ == "__main__":
    answer_for_ever()
