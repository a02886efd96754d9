"""What a result of a span is bound to: the layers, the sequences and their positions."""

from __future__ import annotations

import hashlib
from typing import Any, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocol import cbor
from protocol.cbor import encode_uint as uint
from protocol.envelope import MAX_ID, buffer_bytes
from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_list
from protocol.limits import CACHE_BYTES, HASH_BYTES, MAX_CHUNK_ROWS, MAX_LAYERS, MAX_POSITIONS, MAX_STEP_PARTS
from protocol.pattern import ENCODED_HASH

Floats = NDArray[np.float32]

DIGEST_DOMAIN = b"kek/1 span"

ONE_PART = b"\x81\x83" + (0x40 + CACHE_BYTES).to_bytes(1, "big")
"""How the sequences of a binding begin where there is one."""


class SpanRows(Struct, frozen=True):
    """Rows of one sequence in a step."""

    cache: bytes
    """The id of its cache, which its client chose at random."""
    start: int
    stop: int
    """Positions `[start, stop)`. What the cache holds from `start` on is forgotten first."""

    @classmethod
    def from_entry(cls, entry: Any) -> Self:
        if not isinstance(entry, list) or len(entry) != 3:
            raise RemoteProtocolError("rows of a step are [cache, start, stop]")
        fields = dict(enumerate(entry))
        start = take_integer(fields, 1, 0, MAX_POSITIONS - 1)
        stop = take_integer(fields, 2, start + 1, min(start + MAX_CHUNK_ROWS, MAX_POSITIONS))
        return cls(take_bytes(fields, 0, CACHE_BYTES), start, stop)


class SpanBinding(Struct, frozen=True):
    """What the result of a step is bound to. A result with another binding does not count."""

    nonce: int
    """The id of the message, new in every step."""
    model_id: bytes
    first: int
    end: int
    """Layers `[first, end)`."""
    parts: tuple[SpanRows, ...]
    """The rows, one sequence after the other; each once."""

    @property
    def num_rows(self) -> int:
        return sum(part.stop - part.start for part in self.parts)

    def as_list(self) -> list[Any]:
        """The binding as it is sent, and as it is hashed with the result."""
        parts = [[part.cache, part.start, part.stop] for part in self.parts]
        return [self.nonce, self.model_id, self.first, self.end, parts]

    @property
    def encoded(self) -> bytes:
        """`as_list` in deterministic CBOR."""
        if len(self.parts) != 1 or len(self.model_id) != HASH_BYTES or len(self.parts[0].cache) != CACHE_BYTES:
            return cbor.encode(self.as_list())
        (part,) = self.parts
        layers, rows = (uint(self.first), uint(self.end)), (uint(part.start), uint(part.stop))
        return b"".join(
            (b"\x85", uint(self.nonce), ENCODED_HASH, self.model_id, *layers, ONE_PART, part.cache, *rows)
        )

    @classmethod
    def from_list(cls, values: list[Any]) -> Self:
        fields = dict(enumerate(values))
        first = take_integer(fields, 2, 0, MAX_LAYERS - 1)
        parts = tuple(SpanRows.from_entry(entry) for entry in take_list(fields, 4, MAX_STEP_PARTS))
        binding = cls(
            nonce=take_integer(fields, 0, 0, MAX_ID),
            model_id=take_bytes(fields, 1, HASH_BYTES),
            first=first,
            end=take_integer(fields, 3, first + 1, MAX_LAYERS),
            parts=parts,
        )
        if not 1 <= binding.num_rows <= MAX_CHUNK_ROWS or len({part.cache for part in parts}) < len(parts):
            raise RemoteProtocolError("a step has 1 to 512 rows, and each cache once")
        return binding


def rows_hash(rows: Floats) -> bytes:
    """SHA-256 of rows f32[T, D], little-endian."""
    return hashlib.sha256(buffer_bytes(np.ascontiguousarray(rows, dtype="<f4"))).digest()


def span_digest(binding: SpanBinding, rows: Floats) -> bytes:
    """SHA-256 of the domain, the binding as deterministic CBOR and the rows, f32 little-endian."""
    sha256 = hashlib.sha256(DIGEST_DOMAIN + binding.encoded)
    sha256.update(buffer_bytes(np.ascontiguousarray(rows, dtype="<f4")))
    return sha256.digest()
