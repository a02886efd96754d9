"""Shares made by hand, with ids and nonces of 64 bits as sessions have them."""

from __future__ import annotations

import numpy as np
from made_parts import KERNELS, MODEL_ID, weights_of

from node.model.unit import Unit
from node.serving.native_shares import native_shares
from node.serving.worker import LinearWorker
from protocol.codec import encode_message
from protocol.linear.field import P
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.message import Message

FIRST_ID = (1 << 61) + 5
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
