"""Messages about a span: a run of decoder layers, and the KV cache of one sequence for them.

Whoever computes a span can read the text, so its requests are for devices of the same owner alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocol import cbor
from protocol.discreet import Discreet
from protocol.envelope import MAX_ID, DType, Tensor, buffer_bytes
from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_list
from protocol.limits import (
    CACHE_BYTES,
    HASH_BYTES,
    MAX_CHUNK_ROWS,
    MAX_COMPUTE_US,
    MAX_DATA_BYTES,
    MAX_HIDDEN_SIZE,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_STEP_PARTS,
)
from protocol.message import BodyMessage, Message, MessageType
from protocol.work import WorkRequest

Floats = NDArray[np.float32]

DIGEST_DOMAIN = b"kek/1 span"


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


def span_digest(binding: SpanBinding, rows: Floats) -> bytes:
    """SHA-256 of the domain, the binding as deterministic CBOR and the rows, f32 little-endian."""
    sha256 = hashlib.sha256(DIGEST_DOMAIN)
    sha256.update(cbor.encode(binding.as_list()))
    sha256.update(buffer_bytes(np.ascontiguousarray(rows, dtype="<f4")))
    return sha256.digest()


class SpanOpen(BodyMessage, frozen=True):
    """Request: keep an empty cache for one sequence. The answer is a SPAN_OPENED or an error."""

    TYPE: ClassVar[MessageType] = MessageType.SPAN_OPEN
    cache: bytes
    model_id: bytes
    first: int
    end: int
    capacity: int
    """Most tokens that the sequence may have."""
    reach: int
    """The length that the text may reach: longrope chooses its factors by it."""

    def to_body(self) -> dict[int, Any]:
        return {0: self.cache, 1: self.model_id, 2: self.first, 3: self.end, 4: self.capacity, 5: self.reach}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        first = take_integer(body, 2, 0, MAX_LAYERS - 1)
        return cls(
            cache=take_bytes(body, 0, CACHE_BYTES),
            model_id=take_bytes(body, 1, HASH_BYTES),
            first=first,
            end=take_integer(body, 3, first + 1, MAX_LAYERS),
            capacity=take_integer(body, 4, 1, MAX_POSITIONS),
            reach=take_integer(body, 5, 0, MAX_POSITIONS),
        )


class SpanOpened(BodyMessage, frozen=True):
    """Answer to a SPAN_OPEN."""

    TYPE: ClassVar[MessageType] = MessageType.SPAN_OPENED
    idle_s: int
    """The cache is dropped when no step has come for so many seconds."""

    def to_body(self) -> dict[int, Any]:
        return {0: self.idle_s}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, 1 << 31))


class SpanClose(BodyMessage, frozen=True):
    """A cache is not needed any more. One way, idempotent."""

    TYPE: ClassVar[MessageType] = MessageType.SPAN_CLOSE
    cache: bytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.cache}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, CACHE_BYTES))


class SpanStep(Discreet, WorkRequest, frozen=True):
    """Request: compute rows through the layers of caches."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    TYPE: ClassVar[MessageType] = MessageType.SPAN_STEP
    FOR_PAIRED: ClassVar[bool] = True
    KEEPS_STATE: ClassVar[bool] = True
    binding: SpanBinding
    rows: Floats
    """`[num_rows, D]` f32: hidden states before the first layer. Whoever reads them can read the text."""

    @property
    def num_bytes(self) -> int:
        return self.rows.nbytes

    @property
    def result_bytes(self) -> int:
        return self.rows.nbytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.binding.as_list()}

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.F32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        binding, rows = SpanBinding.from_list(take_list(body, 0, 5)), _take_rows(buffers)
        if len(rows) != binding.num_rows:
            raise RemoteProtocolError("the rows of a step are not those of its binding")
        return cls(binding, rows)


class SpanResult(Discreet, Message, frozen=True):
    """Answer to a SPAN_STEP: the hidden states after the last layer."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    TYPE: ClassVar[MessageType] = MessageType.SPAN_RESULT
    digest: bytes
    compute_us: int
    """How long the peer says it computed, in microseconds."""
    rows: Floats
    """`[num_rows, D]` f32."""

    def answers(self, binding: SpanBinding, hidden_size: int) -> bool:
        """Whether it is the result of this very step, as it was sent."""
        shape = (binding.num_rows, hidden_size)
        return self.rows.shape == shape and span_digest(binding, self.rows) == self.digest

    def to_body(self) -> dict[int, Any]:
        return {0: self.digest, 1: self.compute_us}

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.F32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        digest, compute_us = take_bytes(body, 0, HASH_BYTES), take_integer(body, 1, 0, MAX_COMPUTE_US)
        return cls(digest, compute_us, _take_rows(buffers))


def max_rows_per_step(hidden_size: int) -> int:
    """Most rows of one step: its bytes stay within one message."""
    return max(1, min(MAX_CHUNK_ROWS, MAX_DATA_BYTES // (4 * hidden_size)))


def _take_rows(buffers: tuple[Tensor, ...]) -> Floats:
    if len(buffers) != 1 or buffers[0].dtype is not DType.F32 or buffers[0].data.ndim != 2:
        raise RemoteProtocolError("one F32 buffer of two dimensions is expected")
    rows = buffers[0].data
    if not 1 <= rows.shape[0] <= MAX_CHUNK_ROWS or not 1 <= rows.shape[1] <= MAX_HIDDEN_SIZE:
        raise RemoteProtocolError("a step has 1 to 512 rows of hidden states")
    return rows
