"""Shares made by hand, with ids and nonces of 64 bits as sessions have them, and a socket that C reads."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import zmq
from made_parts import KERNELS, MODEL_ID, make_unit, weights_of
from msgspec import Struct

from node.model.unit import Unit
from node.serving.native_shares import NativeShares, Visit, native_shares
from node.serving.worker import LinearWorker
from protocol.codec import encode_message
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.field import P, Weights
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.linear.quick import quick_share
from protocol.message import Message

FIRST_ID = (1 << 61) + 5
UNITS = [make_unit(20, 6), make_unit(1100, 5), make_unit(7, 300), make_unit(600, 40, layer=1)]
_endpoints = itertools.count()
HAS_NATIVE = native_shares(LinearWorker(KERNELS, weights_of([]))) is not None


def share_of(unit: Unit, num_rows: int = 1, tiles: tuple[int, int] | None = None, number: int = 0) -> Linear:
    start, end = tiles or (0, -(-unit.ref.num_outputs // 512))
    message_id = FIRST_ID + number
    binding = ChunkBinding(
        bytes(range(16)), message_id, MODEL_ID, unit.ref.sha256, Role.SHARE, 0, num_rows, start, end
    )
    rows = np.random.default_rng([number, num_rows]).integers(0, P, (num_rows, unit.ref.num_inputs), dtype=np.uint32)
    return Linear(binding, rows=rows)


def frames_of(message: Message, message_id: int | None = None) -> list[bytes]:
    if message_id is None:
        assert isinstance(message, Linear)
        message_id = message.binding.nonce
    return [bytes(frame) for frame in encode_message(message, message_id)]


class Pair(Struct):
    """A ROUTER that C reads, and the peer at its other end."""

    router: zmq.Socket[bytes]
    peer: zmq.Socket[bytes]
    route: bytes
    held: dict[tuple[bytes, bytes], Weights]
    shares: NativeShares

    def ask(self, *shares: Linear) -> None:
        for share in shares:
            self.peer.send_multipart(frames_of(share))

    def learn(self, *shares: Linear) -> None:
        for share in shares:
            quick = quick_share(frames_of(share), MAX_DATA_HEADER_BYTES)
            assert quick is not None
            self.shares.learn(quick[0].rest)

    def serve(self, *listened: int) -> Visit:
        return self.shares.serve(self.router, self.route, listened)

    def answers(self) -> list[list[bytes]]:
        found = []
        while self.peer.poll(0):
            found.append(self.peer.recv_multipart())
        return found


@contextlib.contextmanager
def pair_of(context: zmq.Context[zmq.Socket[bytes]], most: int = 1000) -> Iterator[Pair]:
    router, peer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    held = {(MODEL_ID, unit.ref.sha256): unit.weights for unit in UNITS}
    shares = native_shares(LinearWorker(KERNELS, lambda model_id, unit: held.get((model_id, unit))))
    assert shares is not None
    try:
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.sndhwm = peer.rcvhwm = most
        endpoint = f"inproc://shares-{next(_endpoints)}"
        router.bind(endpoint)
        peer.connect(endpoint)
        peer.send(b"")
        yield Pair(router, peer, router.recv_multipart()[0], held, shares)
    finally:
        router.close(linger=0)
        peer.close(linger=0)
