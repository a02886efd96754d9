"""Messages about a span: a run of decoder layers, and the KV cache of one sequence for them.

Whoever computes a span can read the text, so its requests are for devices of the same owner alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from protocol.discreet import Discreet
from protocol.envelope import DType, Tensor
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
    MAX_ONWARD,
    MAX_POSITIONS,
    WAY_KEY_BYTES,
)
from protocol.message import BodyMessage, Message, MessageType
from protocol.spans.binding import Floats, SpanBinding, span_digest
from protocol.spans.onward import SEAL_BYTES, Onward, way_of
from protocol.work import WorkRequest


class SpanOpen(Discreet, BodyMessage, frozen=True):
    """Request: keep an empty cache for one sequence. The answer is a SPAN_OPENED or an error."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("key",)
    TYPE: ClassVar[MessageType] = MessageType.SPAN_OPEN
    cache: bytes
    model_id: bytes
    first: int
    end: int
    capacity: int
    """Most tokens that the sequence may have."""
    reach: int
    """The length that the text may reach: longrope chooses its factors by it."""
    key: bytes
    """With it the client seals the steps that another device hands on."""

    def to_body(self) -> dict[int, Any]:
        return {
            0: self.cache,
            1: self.model_id,
            2: self.first,
            3: self.end,
            4: self.capacity,
            5: self.reach,
            6: self.key,
        }

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
            key=take_bytes(body, 6, WAY_KEY_BYTES),
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
    onward: tuple[Onward, ...] = ()
    """The devices that the result goes on to, beside the client."""

    @property
    def num_bytes(self) -> int:
        return self.rows.nbytes

    @property
    def result_bytes(self) -> int:
        return self.rows.nbytes

    def to_body(self) -> dict[int, Any]:
        way = {1: [one.as_list() for one in self.onward]} if self.onward else {}
        return {0: self.binding.as_list(), **way}

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.F32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        return cls(*_take_step(body, buffers))


class SpanPass(SpanStep, frozen=True):
    """A step that a device hands on: the rows are its result. It comes from that device; the client that sealed it
    gets the answer, as if it had sent the step itself."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows", "seal")
    TYPE: ClassVar[MessageType] = MessageType.SPAN_PASS
    FOR_PAIRED: ClassVar[bool] = False
    """Its sender need not be paired; who opened the caches must be."""
    seal: bytes = b""

    def to_body(self) -> dict[int, Any]:
        return {**super().to_body(), 2: self.seal}

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        return cls(*_take_step(body, buffers), take_bytes(body, 2, SEAL_BYTES))


class SpanResult(Discreet, Message, frozen=True):
    """Answer to a SPAN_STEP: the hidden states after the last layer."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    TYPE: ClassVar[MessageType] = MessageType.SPAN_RESULT
    digest: bytes
    compute_us: int
    """How long the peer says it computed, in microseconds."""
    rows: Floats
    """`[num_rows, D]` f32."""
    inputs: bytes | None = None
    """Of a step that another device handed on: the SHA-256 of the rows that it brought."""
    passed: bool = False
    """Whether the result was also sent to the next device of the way."""

    def answers(self, binding: SpanBinding, hidden_size: int) -> bool:
        """Whether it is the result of this very step, as it was sent."""
        shape = (binding.num_rows, hidden_size)
        return self.rows.shape == shape and span_digest(binding, self.rows) == self.digest

    def to_body(self) -> dict[int, Any]:
        body: dict[int, Any] = {0: self.digest, 1: self.compute_us}
        if self.inputs is not None:
            body[2] = self.inputs
        if self.passed:
            body[3] = 1
        return body

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.F32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        return cls(
            digest=take_bytes(body, 0, HASH_BYTES),
            compute_us=take_integer(body, 1, 0, MAX_COMPUTE_US),
            rows=_take_rows(buffers),
            inputs=take_bytes(body, 2, HASH_BYTES) if 2 in body else None,
            passed=bool(take_integer(body, 3, 0, 1)) if 3 in body else False,
        )


def max_rows_per_step(hidden_size: int) -> int:
    """Most rows of one step: its bytes stay within one message."""
    return max(1, min(MAX_CHUNK_ROWS, MAX_DATA_BYTES // (4 * hidden_size)))


def _take_step(
    body: Mapping[int, Any], buffers: tuple[Tensor, ...]
) -> tuple[SpanBinding, Floats, tuple[Onward, ...]]:
    binding, rows = SpanBinding.from_list(take_list(body, 0, 5)), _take_rows(buffers)
    if len(rows) != binding.num_rows:
        raise RemoteProtocolError("the rows of a step are not those of its binding")
    return binding, rows, way_of(take_list(body, 1, MAX_ONWARD), len(rows)) if 1 in body else ()


def _take_rows(buffers: tuple[Tensor, ...]) -> Floats:
    if len(buffers) != 1 or buffers[0].dtype is not DType.F32 or buffers[0].data.ndim != 2:
        raise RemoteProtocolError("one F32 buffer of two dimensions is expected")
    rows = buffers[0].data
    if not 1 <= rows.shape[0] <= MAX_CHUNK_ROWS or not 1 <= rows.shape[1] <= MAX_HIDDEN_SIZE:
        raise RemoteProtocolError("a step has 1 to 512 rows of hidden states")
    return rows
