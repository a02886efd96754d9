"""The gate: every result passes binding, SHA-256, canonical range and Freivalds' check before it is used.

Freivalds (1977): for secret random `u`, `u (W b) = (u W) b`; `u W` is computed once, so checking a row costs
two dot products. Soundness over F_p and why composite moduli will not do: Slalom (arXiv 1806.03287).
A verdict is one bit, taken after everything was computed: an early exit would tell a liar which test it failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from msgspec import Struct, field

from protocol.discreet import Discreet
from protocol.envelope import buffer_bytes
from protocol.limits import FREIVALDS_VECTORS, TILE_OUTPUTS
from protocol.linear.field import (
    Elements,
    FieldArithmetic,
    P,
    Sums,
    Weights,
    elements_of_words,
)
from protocol.linear.messages import ChunkBinding, WorkResult

DIGEST_DOMAIN = b"kek/1 result"
_HASHED = (np.dtype("<u4"), np.dtype("<i4"))

SMALL_BYTES = 1 << 16
"""A result of so many bytes is hashed in one piece, with what it is bound to: copying costs less than a call."""

RandomBytes = Callable[[int], bytes]


class ResultDigest:
    """SHA-256 of the domain, the binding as deterministic CBOR and the result bytes (u32 or i32 LE), as they come."""

    def __init__(self, binding: ChunkBinding) -> None:
        self._sha256 = hashlib.sha256(DIGEST_DOMAIN + binding.encoded)

    def update(self, rows: Elements | Sums) -> None:
        """The next rows of the result, `[any, outputs]`."""
        self._sha256.update(_hashed_bytes(rows))

    def digest(self) -> bytes:
        """The 32 bytes that go with the result."""
        return self._sha256.digest()


def result_digest(binding: ChunkBinding, rows: Elements | Sums) -> bytes:
    """The digest of a whole result."""
    return digest_of(binding.encoded, rows)


def digest_of(encoded: bytes, rows: Elements | Sums) -> bytes:
    """The same for a binding that is encoded already."""
    if rows.nbytes <= SMALL_BYTES:
        return hashlib.sha256(b"".join((DIGEST_DOMAIN, encoded, _hashed_bytes(rows)))).digest()
    sha256 = hashlib.sha256(DIGEST_DOMAIN + encoded)
    sha256.update(_hashed_bytes(rows))
    return sha256.digest()


def _hashed_bytes(rows: Elements | Sums) -> memoryview:
    is_hashed_so = rows.dtype in _HASHED and rows.flags.c_contiguous
    return buffer_bytes(rows if is_hashed_so else np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<")))


def random_elements(shape: tuple[int, int], random_bytes: RandomBytes) -> Elements:
    """Uniform elements from `random_bytes(n)`, by rejection."""
    wanted = shape[0] * shape[1]
    elements = elements_of_words(np.frombuffer(random_bytes(4 * wanted), dtype="<u4"))
    while len(elements) < wanted:
        more = elements_of_words(np.frombuffer(random_bytes(4 * 16), dtype="<u4"))
        elements = np.concatenate([elements, more])
    return elements[:wanted].reshape(shape)


class UnitCheck(Discreet, Struct):
    """Secret `U` and `V = U W` of one unit, kept a tile at a time so that any slice can be checked."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("vectors", "projections", "_slices")
    vectors: Elements
    """`[3, N]`, secret: whoever knows it can forge results."""
    projections: Elements
    """`[tiles, 3, K]`: the part of V that each tile of 512 outputs contributes."""
    _slices: dict[tuple[int, int], tuple[Elements, Elements]] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights, arithmetic: FieldArithmetic, random_bytes: RandomBytes) -> UnitCheck:
        """Draw U and stream once over `weights [N, K]` int8."""
        num_outputs, num_inputs = weights.shape
        vectors = random_elements((FREIVALDS_VECTORS, num_outputs), random_bytes)
        starts = range(0, num_outputs, TILE_OUTPUTS)
        projections = np.empty((len(starts), FREIVALDS_VECTORS, num_inputs), dtype=np.uint32)
        for tile, start in enumerate(starts):
            part = np.ascontiguousarray(vectors[:, start : start + TILE_OUTPUTS])
            projections[tile] = arithmetic.field_project(part, weights[start : start + TILE_OUTPUTS])
        return cls(vectors, projections)

    def slice(self, tile_start: int, tile_end: int) -> tuple[Elements, Elements]:
        """`U [3, outputs]` and `V [3, K]` of tiles `[tile_start, tile_end)`."""
        key = (tile_start, tile_end)
        known = self._slices.get(key)
        if known is None:
            vectors = self.vectors[:, tile_start * TILE_OUTPUTS : tile_end * TILE_OUTPUTS]
            total = self.projections[tile_start:tile_end].sum(axis=0, dtype=np.uint64) % np.uint64(P)
            known = self._slices[key] = np.ascontiguousarray(vectors), total.astype(np.uint32)
        return known

    def __repr__(self) -> str:
        return f"UnitCheck({self.vectors.shape[1]} outputs)"


def freivalds(
    check: UnitCheck,
    binding: ChunkBinding,
    inputs: Elements,
    outputs: Elements,
    arithmetic: FieldArithmetic,
    random_bytes: RandomBytes,
) -> bool:
    """Whether `outputs [T, N']` are canonical and `inputs [T, K] W'` mod p for the tiles of `binding`.

    Up to three rows: every row against every vector. More: one fresh secret combination of the rows for
    each vector, drawn after the result came; error at most (2/p)^3 either way.
    """
    vectors, projections = check.slice(binding.tile_start, binding.tile_end)
    if len(outputs) <= FREIVALDS_VECTORS:
        return arithmetic.dots_agree(vectors, outputs, projections, inputs)
    canonical = arithmetic.all_canonical(outputs)
    # Combinations need canonical rows; those of others are refused, whatever is computed of zeros instead.
    safe = outputs if canonical else np.zeros_like(outputs)
    coefficients = random_elements((FREIVALDS_VECTORS, len(outputs)), random_bytes)
    combined = (arithmetic.field_combine(coefficients, rows) for rows in (safe, inputs))
    return arithmetic.dots_agree(vectors, next(combined), projections, next(combined)) and canonical


def passes_gate(
    binding: ChunkBinding,
    inputs: Elements,
    result: WorkResult,
    check: UnitCheck,
    arithmetic: FieldArithmetic,
    random_bytes: RandomBytes,
) -> bool:
    """The one gate: shape, digest over the binding, canonical range, Freivalds. One bit out.

    `inputs [T, K]` are the elements the peer worked on: the share it was sent, the pads of its seed, or this device's
    own quantization of the rows it was sent as they are.
    """
    num_outputs = check.slice(binding.tile_start, binding.tile_end)[0].shape[1]
    if binding.role not in result.ROLES or result.numbers.shape != (binding.num_rows, num_outputs):
        return False
    bound = result_digest(binding, result.numbers) == result.digest
    correct = freivalds(check, binding, inputs, result.elements, arithmetic, random_bytes)
    return bound and result.is_whole and correct
