"""From outside a CURVE handshake shows its success or failure, and nothing else passes for one."""

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from made_parts import identity
from zmq.utils import z85

from protocol.link.zmtp import GREETING_BYTES, CurveOutcome, ServerHandshake

WELCOME = b"\x04\xa8\x07WELCOME" + bytes(160)
READY = b"\x04\x26\x05READY" + bytes(32)
ERROR = b"\x04\x0a\x05ERROR\x03400"


@pytest.mark.parametrize("step", [1, 7, 4096])
@pytest.mark.parametrize(
    ("commands", "outcome"),
    [
        (WELCOME, CurveOutcome.UNDER_WAY),
        (WELCOME + READY, CurveOutcome.READY),
        (WELCOME + READY + b"\x00\x01x", CurveOutcome.READY),
        (WELCOME + ERROR, CurveOutcome.FAILED),
        (ERROR, CurveOutcome.FAILED),
        (b"\x00\x05hello", CurveOutcome.FAILED),
        (b"\x06" + bytes(8), CurveOutcome.FAILED),
    ],
)
def test_outcomes(commands: bytes, outcome: CurveOutcome, step: int) -> None:
    handshake, data = ServerHandshake(), bytes(GREETING_BYTES) + commands
    for start in range(0, len(data), step):
        handshake.receive(data[start : start + step])
    assert handshake.outcome is outcome


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_nothing_that_comes_is_an_error_of_ours(parts: list[bytes]) -> None:
    handshake = ServerHandshake()
    for part in parts:
        handshake.receive(part)


def test_a_real_router_is_understood() -> None:
    """What libzmq's own CURVE server sends, through a forwarder of a few lines."""
    import socket

    server, client = identity(1), identity(2)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.linger = dealer.linger = 0
        router.curve_server = True
        router.curve_secretkey = z85.encode(server.curve_secret_key)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.curve_serverkey = z85.encode(server.curve_public_key)
        dealer.curve_secretkey = z85.encode(client.curve_secret_key)
        dealer.curve_publickey = z85.encode(client.curve_public_key)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            dealer.connect(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
            near, _address = listening.accept()
        sent, handshake = 0, ServerHandshake()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            near.settimeout(0.05)
            far.settimeout(0.05)
            while handshake.outcome is CurveOutcome.UNDER_WAY:
                for source, target in ((near, far), (far, near)):
                    try:
                        data = source.recv(4096)
                    except TimeoutError:
                        continue
                    target.sendall(data)
                    sent += len(data) if source is near else 0
                    if source is far:
                        handshake.receive(data)
        assert handshake.outcome is CurveOutcome.READY
        assert sent < 1024
