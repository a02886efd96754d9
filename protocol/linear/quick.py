"""Headers of shares and of their results, written and read by a pattern, because every chunk has two of them.

It reads what the general way reads, to the same values, or nothing: then the general way decides, and says what is
wrong. `codec` uses it; tests compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from msgspec import Struct

from protocol.cbor import encode_uint as uint
from protocol.envelope import MAX_ID, DType, Frame, buffer_bytes
from protocol.limits import (
    HASH_BYTES,
    MAX_CHUNK_ROWS,
    MAX_COMPUTE_US,
    MAX_DATA_BYTES,
    MAX_UNIT_INPUTS,
    SESSION_BYTES,
)
from protocol.linear.field import Elements
from protocol.linear.messages import MAX_TILES, ChunkBinding, Linear, LinearResult, Role
from protocol.message import Message
from protocol.pattern import BEGIN, ENCODED_HASH, UINT, bytes_of, extents, number_of

_ELEMENT = np.dtype("<u4")


_SESSION = (0x40 + SESSION_BYTES).to_bytes(1, "big")
_BODY_OF_SHARE = b"\x04\xa1\x00"
_BODY_OF_RESULT = b"\x04\xa2\x00" + ENCODED_HASH
_BUFFER = b"\x05\x81\x83" + uint(DType.U32) + b"\x82"

_UINT64, _LEAST_UINT64 = b"\x1b", 1 << 32
"""How a number of 64 bits begins, and the least that is written so."""
_BINDING_BEGINS = b"\x89" + _SESSION
_RESULT_BEGIN = BEGIN + uint(LinearResult.TYPE) + b"\x01"
_SHARE_BEGIN = BEGIN + uint(Linear.TYPE) + b"\x01" + _UINT64
_SHARE_MIDDLE = _BODY_OF_SHARE + _BINDING_BEGINS
_SHARE_ID = len(_SHARE_BEGIN)
_SHARE_BODY = _SHARE_ID + 8
_SHARE_SESSION = _SHARE_BODY + len(_SHARE_MIDDLE)
_SHARE_NONCE = _SHARE_SESSION + SESSION_BYTES + 1
_SHARE_REST = _SHARE_NONCE + 8
"""Where the parts of a share's header begin."""


@cache
def _share_rest() -> re.Pattern[bytes]:
    """What follows the nonce in the header of a share. Compiled when the first message comes: a program that lends
    nothing need not wait for it."""
    return re.compile(
        re.escape(ENCODED_HASH)
        + bytes_of(HASH_BYTES)
        + re.escape(ENCODED_HASH)
        + bytes_of(HASH_BYTES)
        + re.escape(uint(Role.SHARE))
        + 4 * UINT
        + re.escape(_BUFFER)
        + 3 * UINT,
        re.DOTALL,
    )


@cache
def _result_header() -> re.Pattern[bytes]:
    return re.compile(
        re.escape(_RESULT_BEGIN)
        + UINT
        + re.escape(_BODY_OF_RESULT)
        + bytes_of(HASH_BYTES)
        + rb"\x01"
        + UINT
        + re.escape(_BUFFER)
        + 3 * UINT,
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
    return [_header(message.TYPE, message_id, body, rows.shape), buffer_bytes(rows)]


def header_of_share(binding: ChunkBinding, message_id: int, num_inputs: int) -> Frame:
    """The header of a request for the product of a share, which needs not the share itself: its first frame."""
    assert 0 <= message_id <= MAX_ID, "an id of a request"
    return _header(Linear.TYPE, message_id, _BODY_OF_SHARE + binding.encoded, (binding.num_rows, num_inputs))


def _header(kind: int, message_id: int, body: bytes, shape: tuple[int, ...]) -> Frame:
    num_rows, width = shape
    rest = _BUFFER + extents(num_rows, width, _ELEMENT.itemsize * num_rows * width)
    return BEGIN + uint(kind) + b"\x01" + uint(message_id) + body + rest


def before_digest(message_id: int) -> bytes:
    """What stands before the digest in the header of a result."""
    return _RESULT_BEGIN + uint(message_id) + _BODY_OF_RESULT


def after_micros(num_rows: int, num_outputs: int) -> bytes:
    """What stands in the header of a result `[num_rows, num_outputs]` after the microseconds, which follow the digest
    and their key."""
    return _BUFFER + extents(num_rows, num_outputs, _ELEMENT.itemsize * num_rows * num_outputs)


class ShareForms(Struct, frozen=True):
    """What the headers of all shares whose ids and nonces have 64 bits have in common, and those of their results."""

    begin: bytes = _SHARE_BEGIN
    """Before the id: big-endian, 8 bytes."""
    middle: bytes = _SHARE_MIDDLE
    """Between id and session."""
    binding_begins: int = len(_BINDING_BEGINS)
    """So many bytes of `middle` belong to the binding."""
    answer_begin: bytes = _RESULT_BEGIN + _UINT64
    answer_middle: bytes = _BODY_OF_RESULT
    """Between id and digest."""


class ShareRest(Struct, frozen=True):
    """What follows the nonce in the header of a share: the same in all requests of a client for a unit."""

    encoded: bytes
    model_id: bytes
    unit: bytes
    """SHA-256 of the unit's file."""
    row_start: int
    row_end: int
    tile_start: int
    tile_end: int
    shape: tuple[int, int]
    """Of the rows."""
    binding_size: int
    """So much of it belongs to the binding."""

    @property
    def num_rows(self) -> int:
        return self.row_end - self.row_start


class ShareHeader(Struct, frozen=True):
    """The header of a share."""

    id: int
    encoded: bytes
    """Its binding, as it is hashed with the result."""
    session: bytes
    nonce: int
    rest: ShareRest


@lru_cache(maxsize=1024)
def _rest_of(encoded: bytes) -> ShareRest | None:
    found = _share_rest().fullmatch(encoded)
    if found is None:
        return None
    model_id, unit, *numbers = found.groups()
    row_start, row_end, tile_start, tile_end, num_rows, width, num_bytes = map(number_of, numbers)
    if not (row_start < row_end <= MAX_CHUNK_ROWS and tile_start < tile_end <= MAX_TILES):
        return None
    if num_rows != row_end - row_start or width > MAX_UNIT_INPUTS:
        return None
    if num_rows * width * _ELEMENT.itemsize != num_bytes or not 0 < num_bytes <= MAX_DATA_BYTES:
        return None
    bounds = row_start, row_end, tile_start, tile_end
    return ShareRest(encoded, model_id, unit, *bounds, (num_rows, width), found.start(7) - len(_BUFFER))


def share_header(header: bytes) -> ShareHeader | None:
    """A header of a share with an id and a nonce of 64 bits, as nearly all have; None for any other."""
    if header[:_SHARE_ID] != _SHARE_BEGIN or header[_SHARE_BODY:_SHARE_SESSION] != _SHARE_MIDDLE:
        return None
    if header[_SHARE_NONCE - 1 : _SHARE_NONCE] != _UINT64:
        return None
    message_id = int.from_bytes(header[_SHARE_ID:_SHARE_BODY], "big")
    nonce = int.from_bytes(header[_SHARE_NONCE:_SHARE_REST], "big")
    rest = _rest_of(header[_SHARE_REST:])
    if rest is None or message_id < _LEAST_UINT64 or nonce < _LEAST_UINT64:
        return None
    encoded = header[_SHARE_SESSION - len(_BINDING_BEGINS) : _SHARE_REST + rest.binding_size]
    return ShareHeader(message_id, encoded, header[_SHARE_SESSION : _SHARE_NONCE - 1], nonce, rest)


def share_rows(header: ShareHeader, frame: Frame) -> Elements | None:
    """`[num_rows, K]`; None where the frame has not the size that the header states."""
    num_rows, width = header.rest.shape
    if len(frame) != _ELEMENT.itemsize * num_rows * width:
        return None
    rows: Elements = np.frombuffer(frame, dtype=_ELEMENT).reshape(num_rows, width)
    return rows


def quick_share(frames: Sequence[Frame], max_header_bytes: int) -> tuple[ShareHeader, Elements] | None:
    """The header and the rows, where these frames are a share and break no rule; else None."""
    if len(frames) != 2 or len(frames[0]) > max_header_bytes:
        return None
    share = share_header(bytes(frames[0]))
    rows = None if share is None else share_rows(share, frames[1])
    return None if share is None or rows is None else (share, rows)


def quick_message(frames: Sequence[Frame], max_header_bytes: int) -> tuple[int, Message] | None:
    """The id and the message, where these frames are a share or its result and break no rule; else None."""
    if len(frames) != 2 or len(frames[0]) > max_header_bytes or len(frames[1]) > MAX_DATA_BYTES:
        return None
    if (quick := quick_share(frames, max_header_bytes)) is not None:
        share, shares = quick
        return share.id, Linear(_binding_of(share), None, shares)
    found = _result_header().fullmatch(bytes(frames[0]))
    if found is None:
        return None
    message_id, digest, compute_us, *shape = found.groups()
    rows = _rows(shape, frames[1])
    micros = number_of(compute_us)
    if rows is None or micros > MAX_COMPUTE_US:
        return None
    return number_of(message_id), LinearResult(digest, micros, rows)


def _binding_of(share: ShareHeader) -> ChunkBinding:
    rest = share.rest
    bounds = rest.row_start, rest.row_end, rest.tile_start, rest.tile_end
    return ChunkBinding(share.session, share.nonce, rest.model_id, rest.unit, Role.SHARE, *bounds)


def _rows(stated: Sequence[bytes], frame: Frame) -> np.ndarray | None:
    """A buffer as the two extents and the size that a header states; None where they disagree with the frame."""
    num_rows, width, num_bytes = map(number_of, stated)
    if num_bytes != len(frame) or num_rows * width * _ELEMENT.itemsize != num_bytes or not num_bytes:
        return None
    return np.frombuffer(frame, dtype=_ELEMENT).reshape(num_rows, width)
