"""Headers of steps and of their results, written and read by a pattern: every token has two of them for each device.

As `protocol.linear.quick`: it reads what the general way reads, to the same values, or nothing. It takes steps of one
sequence with at most one further device, as those of a text that is generated alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from protocol.cbor import encode_uint as uint
from protocol.envelope import MAX_ID, DType, Frame, buffer_bytes
from protocol.identity import peer_id_of
from protocol.limits import (
    CACHE_BYTES,
    HASH_BYTES,
    MAX_CHUNK_ROWS,
    MAX_COMPUTE_US,
    MAX_DATA_BYTES,
    MAX_HIDDEN_SIZE,
    MAX_LAYERS,
    MAX_POSITIONS,
)
from protocol.message import Message
from protocol.pattern import BEGIN, ENCODED_HASH, UINT, bytes_of, extents, number_of
from protocol.spans.binding import ONE_PART, Floats, SpanBinding, SpanRows
from protocol.spans.messages import SpanPass, SpanResult, SpanStep
from protocol.spans.onward import ENCODED_ENTRY, Onward

_ELEMENT = np.dtype("<f4")
_BUFFER = b"\x05\x81\x83" + uint(DType.F32) + b"\x82"
_WAY, _SEAL = b"\x01\x81", b"\x02" + ENCODED_HASH
"""Keys of a step's body, and how their values begin."""
_DIGEST, _COMPUTED, _INPUTS, _PASSED = b"\x00" + ENCODED_HASH, b"\x01", b"\x02" + ENCODED_HASH, b"\x03\x01"
"""The same of a result's."""
_MAPS = [(0xA0 + size).to_bytes(1, "big") for size in range(5)]
"""How a map of so many keys begins."""


def quick_frames(message: Message, message_id: int) -> list[Frame] | None:
    """The frames of a step or of its result; None for those that are left to the general way."""
    kind = type(message)
    if kind is SpanResult:
        body = _body_of_result(message)  # type: ignore[arg-type]
    elif kind is SpanStep or kind is SpanPass:
        body = _body_of_step(message)  # type: ignore[arg-type]
    else:
        return None
    rows: Floats = message.rows  # type: ignore[attr-defined]
    if body is None or not 0 <= message_id <= MAX_ID:
        return None
    if rows.dtype != _ELEMENT or rows.ndim != 2 or not rows.flags.c_contiguous:
        return None
    begin = (BEGIN, uint(message.TYPE), b"\x01", uint(message_id), b"\x04")
    return [b"".join((*begin, body, _BUFFER, extents(*rows.shape, rows.nbytes))), buffer_bytes(rows)]


def _body_of_step(step: SpanStep) -> bytes | None:
    if len(step.onward) > 1:
        return None
    parts = [b"\x00", step.binding.encoded]
    if step.onward:
        parts += [_WAY, step.onward[0].encoded]
    if isinstance(step, SpanPass):
        if len(step.seal) != HASH_BYTES:
            return None
        parts += [_SEAL, step.seal]
    return b"".join((_MAPS[len(parts) // 2], *parts))


def _body_of_result(result: SpanResult) -> bytes | None:
    if len(result.digest) != HASH_BYTES or result.compute_us < 0:
        return None
    parts = [_DIGEST, result.digest, _COMPUTED, uint(result.compute_us)]
    if result.inputs is not None:
        if len(result.inputs) != HASH_BYTES:
            return None
        parts += [_INPUTS, result.inputs]
    if result.passed:
        parts.append(_PASSED)
    return b"".join((_MAPS[(len(parts) + 1) // 2], *parts))


_NUM_OF_BINDING = 7
"""Groups of the pattern of a binding."""


def _binding() -> bytes:
    """The pattern of a binding of one sequence."""
    layers = re.escape(ENCODED_HASH) + bytes_of(HASH_BYTES) + 2 * UINT
    return b"\x85" + UINT + layers + re.escape(ONE_PART) + bytes_of(CACHE_BYTES) + 2 * UINT


def _optional(pattern: bytes) -> bytes:
    return b"(?:" + pattern + b")?"


def _hash_after(key: bytes) -> bytes:
    return re.escape(key) + bytes_of(HASH_BYTES)


def _header(message: type[Message], body: bytes) -> re.Pattern[bytes]:
    begin = re.escape(BEGIN + uint(message.TYPE) + b"\x01") + UINT + b"\x04"
    return re.compile(begin + rb"([\xa1-\xa4])" + body + re.escape(_BUFFER) + 3 * UINT, re.DOTALL)


@cache
def _patterns() -> dict[bytes, re.Pattern[bytes]]:
    """By how a header begins. Compiled when the first message comes: a program that lends nothing need not wait."""
    onward = re.escape(ENCODED_ENTRY) + bytes_of(HASH_BYTES) + _binding() + _hash_after(ENCODED_HASH)
    step = b"\x00" + _binding() + _optional(re.escape(_WAY) + onward)
    more = _optional(_hash_after(_INPUTS)) + _optional(rb"\x03([\x00\x01])")
    result = _hash_after(_DIGEST) + _COMPUTED + UINT + more
    return {
        BEGIN + uint(SpanStep.TYPE): _header(SpanStep, step),
        BEGIN + uint(SpanPass.TYPE): _header(SpanPass, step + _hash_after(_SEAL)),
        BEGIN + uint(SpanResult.TYPE): _header(SpanResult, result),
    }


_BEGINS = len(BEGIN) + 2
"""Bytes up to the type and with it."""


def quick_message(frames: Sequence[Frame], max_header_bytes: int) -> tuple[int, Message] | None:
    """The id and the message, where these frames are a step or its result and break no rule; else None."""
    if len(frames) != 2 or len(frames[0]) > max_header_bytes or len(frames[1]) > MAX_DATA_BYTES:
        return None
    header = bytes(frames[0])
    pattern = _patterns().get(header[:_BEGINS])
    found = None if pattern is None else pattern.fullmatch(header)
    if found is None:
        return None
    message_id, keys, *values, num_rows, width, num_bytes = found.groups()
    rows = _rows(number_of(num_rows), number_of(width), number_of(num_bytes), frames[1])
    if rows is None or keys != _MAPS[_num_keys(values)]:
        return None
    message = _result_of(values, rows) if len(values) == 4 else _step_of(values, rows)
    return None if message is None else (number_of(message_id), message)


def _num_keys(values: Sequence[bytes | None]) -> int:
    """Of a body, by the groups that were found: a result has a group for each, a step many for a binding."""
    if len(values) == 4:
        return sum(value is not None for value in values)
    return 1 + (values[_NUM_OF_BINDING] is not None) + (len(values) > _NUM_OF_STEP)


_NUM_OF_STEP = 2 * _NUM_OF_BINDING + 2
"""Groups of a step: its binding, and of the next device the key, the binding and the seal."""


def _rows(num_rows: int, width: int, num_bytes: int, frame: Frame) -> Floats | None:
    """A buffer as its extents and its size are stated; None where they disagree with the frame."""
    if num_bytes != len(frame) or num_rows * width * _ELEMENT.itemsize != num_bytes:
        return None
    if not 1 <= num_rows <= MAX_CHUNK_ROWS or not 1 <= width <= MAX_HIDDEN_SIZE:
        return None
    return np.frombuffer(frame, dtype=_ELEMENT).reshape(num_rows, width)


def _result_of(values: Sequence[bytes], rows: Floats) -> SpanResult | None:
    digest, compute_us, inputs, passed = values
    micros = number_of(compute_us)
    return None if micros > MAX_COMPUTE_US else SpanResult(digest, micros, rows, inputs, passed == b"\x01")


def _step_of(values: Sequence[bytes], rows: Floats) -> SpanStep | None:
    own, way = _binding_of(values[:_NUM_OF_BINDING], len(rows)), tuple[Onward, ...]()
    if own is None:
        return None
    if (key := values[_NUM_OF_BINDING]) is not None:
        following = _binding_of(values[_NUM_OF_BINDING + 1 : _NUM_OF_STEP - 1], len(rows))
        if following is None:
            return None
        way = (Onward(peer_id_of(key), following, values[_NUM_OF_STEP - 1]),)
    return SpanStep(own, rows, way) if len(values) == _NUM_OF_STEP else SpanPass(own, rows, way, values[-1])


def _binding_of(values: Sequence[bytes], num_rows: int) -> SpanBinding | None:
    """A binding of so many rows; None where a number is beyond its limit."""
    nonce, model_id, first_layer, end_layer, cache, first_row, end_row = values
    first, end, start, stop = map(number_of, (first_layer, end_layer, first_row, end_row))
    if not first < end <= MAX_LAYERS or stop - start != num_rows or not start < stop <= MAX_POSITIONS:
        return None
    return SpanBinding(number_of(nonce), model_id, first, end, (SpanRows(cache, start, stop),))
