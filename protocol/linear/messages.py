"""Requests for linear layers and their results: a row hidden by a pad, the seed of a pad, or a row as it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, ClassVar, Self

from msgspec import Struct

from protocol import cbor
from protocol.cbor import encode_uint
from protocol.discreet import Discreet
from protocol.envelope import MAX_ID, DType, Tensor
from protocol.errors import RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_list
from protocol.limits import (
    HASH_BYTES,
    MAX_CHUNK_ROWS,
    MAX_COMPUTE_US,
    MAX_DATA_BYTES,
    MAX_UNIT_INPUTS,
    MAX_UNIT_OUTPUTS,
    SEED_BYTES,
    SESSION_BYTES,
    TILE_OUTPUTS,
)
from protocol.linear.field import Elements, Floats, Sums, all_centred, elements_of_integers
from protocol.message import Message, MessageType
from protocol.work import WorkRequest

MAX_TILES = MAX_UNIT_OUTPUTS // TILE_OUTPUTS
_BINDING_BEGINS = bytes((0x89, 0x40 + SESSION_BYTES))
_HASH_BEGINS = bytes((0x58, HASH_BYTES))
"""CBOR's heads of a list of nine and of byte strings."""


class Role(IntEnum):
    """The form in which a peer gets a row."""

    PAD = 1
    """The seed of its pad."""
    SHARE = 2
    """The row minus its pad."""
    PLAIN = 3
    """The row itself: only paired devices, only with their user's consent."""


class ChunkBinding(Struct, frozen=True, dict=True):
    """What a result is bound to. A result with another binding does not count."""

    session: bytes
    nonce: int
    model_id: bytes
    unit: bytes
    """SHA-256 of the unit's file."""
    role: Role
    row_start: int
    row_end: int
    tile_start: int
    tile_end: int

    @property
    def num_rows(self) -> int:
        return self.row_end - self.row_start

    def as_list(self) -> list[Any]:
        """The binding as it is hashed with the result (SPEC.md section 8)."""
        return [
            self.session,
            self.nonce,
            self.model_id,
            self.unit,
            int(self.role),
            self.row_start,
            self.row_end,
            self.tile_start,
            self.tile_end,
        ]

    @property
    def encoded(self) -> bytes:
        """`as_list` in deterministic CBOR, put together once: it is sent, and hashed with the result."""
        known: bytes | None = self.__dict__.get("encoded")
        if known is None:
            known = self.__dict__["encoded"] = self._encode()
        return known

    def _encode(self) -> bytes:
        if len(self.session) != SESSION_BYTES or not len(self.model_id) == len(self.unit) == HASH_BYTES:
            return cbor.encode(self.as_list())
        bounds = self.row_start, self.row_end, self.tile_start, self.tile_end
        rest = _encoded_rest(self.model_id, self.unit, self.role, bounds)
        return b"".join((_BINDING_BEGINS, self.session, encode_uint(self.nonce), rest))

    @classmethod
    def from_list(cls, values: list[Any]) -> Self:
        if len(values) != 9:
            raise RemoteProtocolError("a binding has nine entries")
        fields = dict(enumerate(values))
        row_start = take_integer(fields, 5, 0, MAX_CHUNK_ROWS)
        tile_start = take_integer(fields, 7, 0, MAX_TILES)
        return cls(
            session=take_bytes(fields, 0, SESSION_BYTES),
            nonce=take_integer(fields, 1, 0, MAX_ID),
            model_id=take_bytes(fields, 2, HASH_BYTES),
            unit=take_bytes(fields, 3, HASH_BYTES),
            role=Role(take_integer(fields, 4, Role.PAD, Role.PLAIN)),
            row_start=row_start,
            row_end=take_integer(fields, 6, row_start + 1, MAX_CHUNK_ROWS),
            tile_start=tile_start,
            tile_end=take_integer(fields, 8, tile_start + 1, MAX_TILES),
        )


@lru_cache(maxsize=1024)
def _encoded_rest(model_id: bytes, unit: bytes, role: Role, bounds: tuple[int, int, int, int]) -> bytes:
    """What follows the nonce in a binding: the same in most requests of a session for a unit."""
    numbers = b"".join(map(encode_uint, (role, *bounds)))
    return b"".join((_HASH_BEGINS, model_id, _HASH_BEGINS, unit, numbers))


class UnitRequest(WorkRequest, frozen=True):
    """Rows to be multiplied by a unit, in some form."""

    binding: ChunkBinding

    @property
    def result_bytes(self) -> int:
        outputs = (self.binding.tile_end - self.binding.tile_start) * TILE_OUTPUTS
        return min(4 * self.binding.num_rows * outputs, MAX_DATA_BYTES)


class WorkResult(Message, frozen=True):
    """The product, and the digest that binds it to its request."""

    ROLES: ClassVar[frozenset[Role]]
    """Roles of requests that it answers."""
    digest: bytes
    compute_us: int
    """How long the peer says it computed, in microseconds."""

    @property
    def numbers(self) -> Elements | Sums:
        """`[num_rows, outputs]`, as they travelled and were hashed."""
        raise NotImplementedError

    @property
    def elements(self) -> Elements:
        """The product as field elements, canonical or not."""
        raise NotImplementedError

    @property
    def is_whole(self) -> bool:
        """Whether the elements determine the numbers."""
        return True


class Linear(Discreet, UnitRequest, frozen=True):
    """Request: multiply rows by a unit. A seed stands for the rows in role PAD."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("seed", "rows")
    TYPE: ClassVar[MessageType] = MessageType.LINEAR
    seed: bytes | None = None
    rows: Elements | None = None
    """`[num_rows, K]` u32 in role SHARE."""

    @property
    def num_bytes(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.binding.as_list()} | ({} if self.seed is None else {1: self.seed})

    def to_buffers(self) -> tuple[Tensor, ...]:
        return () if self.rows is None else (Tensor(DType.U32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        binding = ChunkBinding.from_list(take_list(body, 0, 9))
        if binding.role is Role.PAD:
            if buffers:
                raise RemoteProtocolError("a pad request carries a seed and no buffer")
            return cls(binding, seed=take_bytes(body, 1, SEED_BYTES))
        if binding.role is not Role.SHARE or 1 in body:
            raise RemoteProtocolError("a share request has the role of a share and no seed")
        return cls(binding, rows=_take_rows(binding, buffers, DType.U32))


class LinearResult(Discreet, WorkResult, frozen=True):
    """Answer to a Linear: `[num_rows, outputs]` u32, and the digest that binds it to the request."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    TYPE: ClassVar[MessageType] = MessageType.LINEAR_RESULT
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.PAD, Role.SHARE})
    rows: Elements

    @property
    def numbers(self) -> Elements:
        return self.rows

    @property
    def elements(self) -> Elements:
        return self.rows

    def to_body(self) -> dict[int, Any]:
        return {0: self.digest, 1: self.compute_us}

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.U32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        return cls(*_take_outcome(body), _take_matrix(buffers, DType.U32))


class TrustedLinear(Discreet, UnitRequest, frozen=True):
    """Request in role PLAIN: quantize these activations and multiply them by a unit."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows",)
    TYPE: ClassVar[MessageType] = MessageType.TRUSTED_LINEAR
    FOR_PAIRED: ClassVar[bool] = True
    rows: Floats
    """`[num_rows, K]` f32: whoever reads them can read the prompt."""

    @property
    def num_bytes(self) -> int:
        return self.rows.nbytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.binding.as_list()}

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.F32, self.rows),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        binding = ChunkBinding.from_list(take_list(body, 0, 9))
        if binding.role is not Role.PLAIN:
            raise RemoteProtocolError("a request with plain rows says so in its role")
        return cls(binding, _take_rows(binding, buffers, DType.F32))


class TrustedResult(Discreet, WorkResult, frozen=True):
    """Answer to a TrustedLinear: the integers `W xq`, before any scale."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("sums",)
    TYPE: ClassVar[MessageType] = MessageType.TRUSTED_RESULT
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.PLAIN})
    sums: Sums
    """`[num_rows, outputs]` i32."""

    @property
    def numbers(self) -> Sums:
        return self.sums

    @property
    def elements(self) -> Elements:
        """Canonical where every integer is below p / 2 in magnitude."""
        return elements_of_integers(self.sums)

    @property
    def is_whole(self) -> bool:
        return all_centred(self.sums)

    def to_body(self) -> dict[int, Any]:
        return {0: self.digest, 1: self.compute_us}

    def to_buffers(self) -> tuple[Tensor, ...]:
        return (Tensor(DType.I32, self.sums),)

    @classmethod
    def from_parts(cls, body: Mapping[int, Any], buffers: tuple[Tensor, ...]) -> Self:
        return cls(*_take_outcome(body), _take_matrix(buffers, DType.I32))


def _take_outcome(body: Mapping[int, Any]) -> tuple[bytes, int]:
    """Digest and microseconds of a result."""
    return take_bytes(body, 0, HASH_BYTES), take_integer(body, 1, 0, MAX_COMPUTE_US)


def _take_matrix(buffers: tuple[Tensor, ...], dtype: DType) -> Any:
    if len(buffers) != 1 or buffers[0].dtype is not dtype or buffers[0].data.ndim != 2:
        raise RemoteProtocolError(f"one {dtype.name} buffer of two dimensions is expected")
    return buffers[0].data


def _take_rows(binding: ChunkBinding, buffers: tuple[Tensor, ...], dtype: DType) -> Any:
    rows = _take_matrix(buffers, dtype)
    if rows.shape[0] != binding.num_rows or rows.shape[1] > MAX_UNIT_INPUTS:
        raise RemoteProtocolError("the rows of a request are not those of its binding")
    return rows
