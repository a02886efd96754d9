"""Headers of shares and of their results, written and read by a pattern, because every chunk has two of them.

There is one form of every header (deterministic CBOR), so a pattern can hold it. It reads what the general way reads,
to the same values, or nothing: then the general way decides, and says what is wrong. `codec` uses it; tests compare
the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np

from protocol.cbor import encode_uint as uint
from protocol.envelope import MAX_ID, DType, Frame, buffer_bytes
from protocol.limits import (
    HASH_BYTES,
    MAGIC,
    MAX_CHUNK_ROWS,
    MAX_COMPUTE_US,
    MAX_DATA_BYTES,
    MAX_UNIT_INPUTS,
    SESSION_BYTES,
)
from protocol.linear.messages import MAX_TILES, ChunkBinding, Linear, LinearResult, Role
from protocol.message import Message

_ELEMENT = np.dtype("<u4")


@lru_cache(maxsize=256)
def _number(encoded: bytes) -> int:
    return encoded[0] if len(encoded) == 1 else int.from_bytes(encoded[1:], "big")


_UINT = rb"([\x00-\x17]|\x18[\x18-\xff]|\x19[\x01-\xff].|\x1a(?!\x00\x00)....|\x1b(?!\x00\x00\x00\x00)........)"
"""Every number in its shortest form, and no other."""
_HASH = b"X" + HASH_BYTES.to_bytes(1, "big")
_SESSION = (0x40 + SESSION_BYTES).to_bytes(1, "big")
_BEGIN = MAGIC + b"\xa4\x00"
_BODY_OF_SHARE = b"\x04\xa1\x00"
_BODY_OF_RESULT = b"\x04\xa2\x00" + _HASH
_BUFFER = b"\x05\x81\x83" + uint(DType.U32) + b"\x82"


def _bytes_of(size: int) -> bytes:
    return b"(.{%d})" % size


@cache
def _share_header() -> re.Pattern[bytes]:
    """Compiled when the first message comes: a program that lends nothing need not wait for it."""
    return re.compile(
        re.escape(_BEGIN + uint(Linear.TYPE) + b"\x01")
        + _UINT
        + re.escape(_BODY_OF_SHARE)
        + rb"\x89"
        + re.escape(_SESSION)
        + _bytes_of(SESSION_BYTES)
        + _UINT
        + re.escape(_HASH)
        + _bytes_of(HASH_BYTES)
        + re.escape(_HASH)
        + _bytes_of(HASH_BYTES)
        + re.escape(uint(Role.SHARE))
        + 4 * _UINT
        + re.escape(_BUFFER)
        + 3 * _UINT,
        re.DOTALL,
    )


@cache
def _result_header() -> re.Pattern[bytes]:
    return re.compile(
        re.escape(_BEGIN + uint(LinearResult.TYPE) + b"\x01")
        + _UINT
        + re.escape(_BODY_OF_RESULT)
        + _bytes_of(HASH_BYTES)
        + rb"\x01"
        + _UINT
        + re.escape(_BUFFER)
        + 3 * _UINT,
        re.DOTALL,
    )


def quick_frames(message: Message, message_id: int) -> list[Frame] | None:
    """The frames of a share or of its result; None for any other message."""
    if not 0 <= message_id <= MAX_ID:
        return None
    if type(message) is LinearResult and message.compute_us >= 0 and len(message.digest) == HASH_BYTES:
        rows = message.rows
        body = _BODY_OF_RESULT + message.digest + b"\x01" + uint(message.compute_us)
    elif type(message) is Linear and message.rows is not None and message.seed is None:
        rows = message.rows
        body = _BODY_OF_SHARE + message.binding.encoded
    else:
        return None
    if rows.dtype != _ELEMENT or rows.ndim != 2 or not rows.flags.c_contiguous:
        return None
    shape = uint(rows.shape[0]) + uint(rows.shape[1]) + uint(rows.nbytes)
    return [_BEGIN + uint(message.TYPE) + b"\x01" + uint(message_id) + body + _BUFFER + shape, buffer_bytes(rows)]


def around_result(message_id: int, num_rows: int, num_outputs: int) -> tuple[bytes, bytes]:
    """The header of the result of a share, `[num_rows, num_outputs]`: what stands before its digest, and after the
    microseconds that follow the digest and their key."""
    before = _BEGIN + uint(LinearResult.TYPE) + b"\x01" + uint(message_id) + _BODY_OF_RESULT
    shape = uint(num_rows) + uint(num_outputs) + uint(_ELEMENT.itemsize * num_rows * num_outputs)
    return before, _BUFFER + shape


def quick_message(frames: Sequence[Frame], max_header_bytes: int) -> tuple[int, Message] | None:
    """The id and the message, where these frames are a share or its result and break no rule; else None."""
    if len(frames) != 2 or len(frames[0]) > max_header_bytes or len(frames[1]) > MAX_DATA_BYTES:
        return None
    header = bytes(frames[0])
    found = _result_header().fullmatch(header)
    if found is not None:
        message_id, digest, compute_us, *shape = found.groups()
        rows = _rows(shape, frames[1])
        micros = _number(compute_us)
        if rows is None or micros > MAX_COMPUTE_US:
            return None
        return _number(message_id), LinearResult(digest, micros, rows)
    found = _share_header().fullmatch(header)
    if found is None:
        return None
    message_id, session, nonce, model_id, unit, *numbers = found.groups()
    row_start, row_end, tile_start, tile_end = map(_number, numbers[:4])
    rows = _rows(numbers[4:], frames[1])
    if not (row_start < row_end <= MAX_CHUNK_ROWS and tile_start < tile_end <= MAX_TILES):
        return None
    if rows is None or rows.shape[0] != row_end - row_start or rows.shape[1] > MAX_UNIT_INPUTS:
        return None
    binding = ChunkBinding(
        session, _number(nonce), model_id, unit, Role.SHARE, row_start, row_end, tile_start, tile_end
    )
    return _number(message_id), Linear(binding, None, rows)


def _rows(stated: Sequence[bytes], frame: Frame) -> np.ndarray | None:
    """A buffer as the two extents and the size that a header states; None where they disagree with the frame."""
    num_rows, width, num_bytes = map(_number, stated)
    if num_bytes != len(frame) or num_rows * width * _ELEMENT.itemsize != num_bytes or not num_bytes:
        return None
    return np.frombuffer(frame, dtype=_ELEMENT).reshape(num_rows, width)
