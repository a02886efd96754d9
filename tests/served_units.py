"""Units that a node serves, requests for them, and a worker that waits for leave."""

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import zmq
from live_nodes import WAIT_S, LiveNode, RawClient
from made_parts import KERNELS, MODEL_ID, identity, make_unit, weights_of

from node.serving.worker import LinearWorker, Parts
from node.transport.channel import Channel
from protocol.codec import Received
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role, TrustedLinear
from protocol.linear.shares import pad_rows

UNITS = [make_unit(20, 6), make_unit(530, 5, layer=1, kind="qkv")]
SEED = bytes(range(32))


class GatedWorker(LinearWorker):
    """Waits for leave before each answer: as a large part in the kernels does, or between two parts."""

    def __init__(self) -> None:
        super().__init__(KERNELS, weights_of(UNITS))
        self.reached = threading.Event()
        self.leave = threading.Event()
        self.listens = False
        """Whether the plane hears what comes meanwhile, as it does between two parts of a chunk."""

    def parts(self, request: Linear | TrustedLinear) -> Parts:
        self.reached.set()
        deadline = time.monotonic() + 2 * WAIT_S
        while not self.leave.wait(0.001):
            assert time.monotonic() < deadline
            if self.listens:
                yield
        return (yield from super().parts(request))


def pad_request(nonce: int = 1, num_rows: int = 1, unit: int = 0, seed: bytes = SEED) -> Linear:
    tiles = -(-UNITS[unit].ref.num_outputs // 512)
    binding = ChunkBinding(bytes(16), nonce, MODEL_ID, UNITS[unit].ref.sha256, Role.PAD, 0, num_rows, 0, tiles)
    return Linear(binding, seed=seed)


def right_answer(request: Linear, unit: int = 0) -> np.ndarray:
    assert request.seed is not None
    rows = pad_rows(request.seed, 0, request.binding.num_rows, UNITS[unit].ref.num_inputs)
    return KERNELS.linear_field(UNITS[unit].weights, rows)


@contextlib.contextmanager
def introduced(node: LiveNode, index: int = 7) -> Iterator[RawClient]:
    """A raw data connection whose owner said hello on the control plane."""
    assert node.address is not None
    with RawClient(node.address.endpoint, node.peer_id, identity(index)) as control:
        control.say_hello()
        with RawClient(node.data_endpoint, node.peer_id, identity(index)) as data:
            yield data


def is_served(client: RawClient, nonce: int = 4242) -> None:
    client.send(pad_request(nonce), nonce)
    while True:
        received = client.receive()
        assert received is not None
        if received.id == nonce:
            break
    assert isinstance(received.message, LinearResult)
    assert np.array_equal(received.message.rows, right_answer(pad_request()))


def receive(channel: Channel) -> Received:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        poller = zmq.Poller()
        for one in channel.pollables:
            poller.register(one, zmq.POLLIN)
        poller.poll(100)
        channel.notice_losses()
        received = channel.receive()
        if received is not None:
            return received
    raise AssertionError("no answer")
