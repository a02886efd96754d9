"""Pieces of patterns for headers: each has one form (deterministic CBOR), so that a pattern can hold it."""

from __future__ import annotations

from functools import lru_cache

from protocol.cbor import encode_uint
from protocol.limits import HASH_BYTES, MAGIC

BEGIN = MAGIC + b"\xa4\x00"
"""Of a message with buffers, up to its type."""
UINT = rb"([\x00-\x17]|\x18[\x18-\xff]|\x19[\x01-\xff].|\x1a(?!\x00\x00)....|\x1b(?!\x00\x00\x00\x00)........)"
"""A number in its shortest form, and no other."""
ENCODED_HASH = b"X" + HASH_BYTES.to_bytes(1, "big")
"""How 32 bytes begin."""


def bytes_of(size: int) -> bytes:
    """A group of so many bytes; patterns with it need DOTALL."""
    return b"(.{%d})" % size


@lru_cache(maxsize=256)
def number_of(encoded: bytes) -> int:
    """What a group of `UINT` means."""
    return encoded[0] if len(encoded) == 1 else int.from_bytes(encoded[1:], "big")


@lru_cache(maxsize=256)
def extents(num_rows: int, width: int, num_bytes: int) -> bytes:
    """The two extents of a buffer and its size."""
    return encode_uint(num_rows) + encode_uint(width) + encode_uint(num_bytes)
