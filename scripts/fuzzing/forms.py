"""Inputs as trees of values and back, so that a mutation can change what is said and leave the encoding legal."""

from __future__ import annotations

import json
import struct
from typing import Any, Protocol

import cbor2

from protocol.limits import MAGIC

_LENGTH = struct.Struct("<I")
_HEADER_LENGTH = struct.Struct("<Q")


class Form(Protocol):
    """How an input is written."""

    def open(self, data: bytes) -> Any:
        """The tree of values; raises ValueError for an input that is not in this form."""

    def close(self, value: Any) -> bytes:
        """The input that says this; raises ValueError for what cannot be written."""


class Raw:
    """Bytes that nobody looks into."""

    def open(self, data: bytes) -> Any:
        raise ValueError("bytes have no parts")

    def close(self, value: Any) -> bytes:
        raise ValueError("bytes have no parts")


class Json:
    """A JSON text."""

    def open(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except RecursionError as exc:
            raise ValueError("too deep") from exc

    def close(self, value: Any) -> bytes:
        try:
            return json.dumps(value).encode()
        except (TypeError, RecursionError) as exc:
            raise ValueError("no JSON") from exc


class Cbor:
    """One value of CBOR, written in the deterministic way."""

    def open(self, data: bytes) -> Any:
        try:
            return cbor2.loads(data)
        except (cbor2.CBORDecodeError, RecursionError, UnicodeError) as exc:
            raise ValueError("no CBOR") from exc

    def close(self, value: Any) -> bytes:
        try:
            return cbor2.dumps(value, canonical=True)
        except (cbor2.CBOREncodeError, TypeError, RecursionError, UnicodeError) as exc:
            raise ValueError("cannot be CBOR") from exc


class Frames:
    """A message: its frames, each after its length. Its tree is the header's map, then the buffers."""

    def __init__(self) -> None:
        self._cbor = Cbor()

    def open(self, data: bytes) -> Any:
        frames = split_frames(data)
        if not frames or not frames[0].startswith(MAGIC):
            raise ValueError("no message")
        return [self._cbor.open(frames[0][len(MAGIC) :]), *frames[1:]]

    def close(self, value: Any) -> bytes:
        if not isinstance(value, list) or not value:
            raise ValueError("no message")
        buffers = [part if isinstance(part, bytes) else self._cbor.close(part) for part in value[1:]]
        return join_frames([MAGIC + self._cbor.close(value[0]), *buffers])


class Safetensors:
    """A header in JSON after its length, then the bytes of the tensors."""

    def __init__(self) -> None:
        self._json = Json()

    def open(self, data: bytes) -> Any:
        if len(data) < _HEADER_LENGTH.size:
            raise ValueError("no header")
        end = _HEADER_LENGTH.size + _HEADER_LENGTH.unpack_from(data)[0]
        return [self._json.open(data[_HEADER_LENGTH.size : end]), data[end:]]

    def close(self, value: Any) -> bytes:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], bytes):
            raise ValueError("not a header and bytes")
        header = self._json.close(value[0])
        return _HEADER_LENGTH.pack(len(header)) + header + value[1]


class Request:
    """An HTTP request whose body is JSON: its head, then the values of the body, whose length the head states."""

    def __init__(self) -> None:
        self._json = Json()

    def open(self, data: bytes) -> Any:
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [
            line for line in head.decode("latin-1").split("\r\n") if not line.lower().startswith("content-length")
        ]
        return [lines, self._json.open(body)]

    def close(self, value: Any) -> bytes:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], list):
            raise ValueError("not a head and a body")
        body = self._json.close(value[1])
        lines = [*map(str, value[0]), f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


class Named:
    """A file: its name on a line of its own, then its content in JSON."""

    def __init__(self) -> None:
        self._json = Json()

    def open(self, data: bytes) -> Any:
        name, _, content = data.partition(b"\n")
        return [name.decode("latin-1"), self._json.open(content)]

    def close(self, value: Any) -> bytes:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
            raise ValueError("not a name and a content")
        return value[0].encode("utf-8", "surrogatepass") + b"\n" + self._json.close(value[1])


def split_frames(data: bytes) -> list[bytes]:
    """The frames of an input; the last one ends where the input ends."""
    frames, at = [], 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        frames.append(data[at : at + length])
        at += length
    return frames


def join_frames(frames: list[bytes]) -> bytes:
    """The input that has these frames."""
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


RAW, JSON, CBOR = Raw(), Json(), Cbor()
FRAMES, SAFETENSORS, REQUEST, NAMED = Frames(), Safetensors(), Request(), Named()
