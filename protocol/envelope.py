"""The form of every message: one header frame, then raw buffers.

Header = 4 bytes of magic and version, then a small CBOR map `{0: type, 1: id, 4: body, 5: buffers}`.
Each buffer is a further frame, described in the map as `[dtype, shape, nbytes]`: CBOR-framed tensor chunks
that are never copied into CBOR.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocol import cbor
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import MAGIC, MAX_BUFFERS, MAX_DATA_BYTES, MAX_DIMENSIONS

KEY_TYPE, KEY_ID, KEY_BODY, KEY_BUFFERS = 0, 1, 4, 5
MAX_ID = (1 << 64) - 1

Frame = bytes | memoryview


class DType(IntEnum):
    """Element types of a buffer on the wire, all little-endian."""

    U8 = 1
    I8 = 2
    I16 = 3
    I32 = 4
    U32 = 5
    F16 = 6
    BF16 = 7
    """Upper half of an f32; numpy has no such type, so a reader gets its u16 words."""
    F32 = 8


_NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    DType.U8: np.dtype("u1"),
    DType.I8: np.dtype("i1"),
    DType.I16: np.dtype("<i2"),
    DType.I32: np.dtype("<i4"),
    DType.U32: np.dtype("<u4"),
    DType.F16: np.dtype("<f2"),
    DType.BF16: np.dtype("<u2"),
    DType.F32: np.dtype("<f4"),
}


class Tensor(Struct, frozen=True):
    """A typed buffer of a message. `data` is C-contiguous and immutable by agreement."""

    dtype: DType
    data: NDArray[Any]

    def __post_init__(self) -> None:
        if self.data.dtype != _NUMPY_TYPES[self.dtype] or not self.data.flags.c_contiguous:
            raise LocalProtocolError(f"a {self.dtype.name} buffer of dtype {self.data.dtype} cannot be sent")


class Envelope(Struct, frozen=True):
    """A message whose body is still an untyped map: what the codec reads and writes."""

    type: int
    id: int
    body: dict[int, Any]
    buffers: tuple[Tensor, ...] = ()


def buffer_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array, without a copy (an empty one has no memory to cast)."""
    return array.data.cast("B") if array.size else memoryview(b"")


def encode_envelope(envelope: Envelope) -> list[Frame]:
    """Frames of one message; buffers are not copied."""
    header: dict[int, Any] = {KEY_TYPE: envelope.type, KEY_ID: envelope.id, KEY_BODY: envelope.body}
    if envelope.buffers:
        header[KEY_BUFFERS] = [[t.dtype, list(t.data.shape), t.data.nbytes] for t in envelope.buffers]
    return [MAGIC + cbor.encode(header), *(buffer_bytes(t.data) for t in envelope.buffers)]


def decode_envelope(frames: Sequence[Frame], max_header_bytes: int) -> Envelope:
    """Read one message; raises RemoteProtocolError naming the first rule it breaks. Buffers are views."""
    if not frames:
        raise RemoteProtocolError("a message without frames")
    if len(frames) > 1 + MAX_BUFFERS:
        raise RemoteProtocolError(f"{len(frames)} frames, at most {1 + MAX_BUFFERS} are read")
    header = decode_header(frames[0], max_header_bytes)
    described = header.pop(KEY_BUFFERS, [])
    if not isinstance(described, list) or len(described) != len(frames) - 1:
        raise RemoteProtocolError("the header describes another number of buffers than came")
    if sum(len(frame) for frame in frames[1:]) > MAX_DATA_BYTES:
        raise RemoteProtocolError(f"buffers of more than {MAX_DATA_BYTES} bytes")
    buffers = tuple(_read_buffer(entry, frame) for entry, frame in zip(described, frames[1:], strict=True))
    return Envelope(header[KEY_TYPE], header[KEY_ID], header[KEY_BODY], buffers)


def decode_header(frame: Frame, max_bytes: int) -> dict[int, Any]:
    """The map in a header frame. Its type, id and body have the right kinds; unknown keys are ignored."""
    if len(frame) > max_bytes:
        raise RemoteProtocolError(f"a header of {len(frame)} bytes, at most {max_bytes} are read")
    data = bytes(frame)
    if not data.startswith(MAGIC):
        if data[:3] == MAGIC[:3] and len(data) > 3:
            raise RemoteProtocolError(f"envelope version {data[3]}, this node reads version {MAGIC[3]}")
        raise RemoteProtocolError("not a Kekahyde message")
    header = cbor.decode(data[len(MAGIC) :], max_bytes)
    if not isinstance(header, dict) or not all(type(key) is int for key in header):
        raise RemoteProtocolError("the header is not a map with integer keys")
    kind, message_id, body = header.get(KEY_TYPE), header.get(KEY_ID), header.get(KEY_BODY)
    if type(kind) is not int or type(message_id) is not int or not 0 <= message_id <= MAX_ID:
        raise RemoteProtocolError("the header has no usable type and id")
    if not isinstance(body, dict) or not all(type(key) is int for key in body):
        raise RemoteProtocolError("the body is not a map with integer keys")
    return header


def _read_buffer(entry: Any, frame: Frame) -> Tensor:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[1], list):
        raise RemoteProtocolError("a buffer description is [dtype, shape, nbytes]")
    code, shape, num_bytes = entry
    if type(code) is not int or code not in _NUMPY_TYPES or len(shape) > MAX_DIMENSIONS:
        raise RemoteProtocolError(f"a buffer of dtype {code!r} with {len(shape)} dimensions is not readable")
    if not all(type(extent) is int and 0 <= extent <= MAX_DATA_BYTES for extent in shape):
        raise RemoteProtocolError("a buffer's shape is a list of sizes")
    if prod(extent or 1 for extent in shape) > MAX_DATA_BYTES:  # numpy multiplies the others beside a zero too
        raise RemoteProtocolError("a buffer's shape is larger than any buffer")
    dtype = _NUMPY_TYPES[DType(code)]
    if type(num_bytes) is not int or num_bytes != len(frame) or prod(shape) * dtype.itemsize != num_bytes:
        raise RemoteProtocolError("a buffer's shape, its stated size and its frame disagree")
    return Tensor(DType(code), np.frombuffer(frame, dtype=dtype).reshape(shape))
