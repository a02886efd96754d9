"""CBOR as Kekahyde reads and writes it: one strict profile of RFC 8949.

Reading refuses tags, duplicate keys, indefinite lengths, trailing bytes, deep nesting and any encoding
that is not the deterministic one, so two readers never see two meanings in the same bytes.
Keys of maps are integers in messages and short text (below 24 bytes) in manifests: the first byte of such a key holds
its size, so length-first and bytewise key order agree.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cbor2

from protocol.cbor_form import MAX_DEPTH, check_form
from protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_ITEMS = 6144
"""Most items of a message, keys and the message itself included (SPEC.md section 4): the largest legal message has
fewer than 5 800."""


INLINE = 24
"""Smaller numbers are one byte."""


def encode(value: object) -> bytes:
    """Deterministic CBOR of maps with integer keys, lists, ints, bytes, text, booleans, floats and None."""
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, TypeError, ValueError) as exc:
        raise LocalProtocolError(f"a value cannot be encoded: {exc}") from exc


@lru_cache(maxsize=256)
def encode_uint(number: int) -> bytes:
    """A whole number from 0 to 2^64 - 1, as `encode` writes it."""
    if number < INLINE:
        return number.to_bytes(1, "big")
    if number < 1 << 8:
        return b"\x18" + number.to_bytes(1, "big")
    if number < 1 << 16:
        return b"\x19" + number.to_bytes(2, "big")
    if number < 1 << 32:
        return b"\x1a" + number.to_bytes(4, "big")
    return b"\x1b" + number.to_bytes(8, "big")


def decode(data: bytes, max_bytes: int, max_items: int = MAX_ITEMS) -> Any:
    """Value of `data`, at most `max_bytes` long; raises RemoteProtocolError for anything but our profile.

    The form is checked first, so what is built is bounded. Encoding the value again and comparing would check the
    same, but costs some microseconds for each map in it: 0.4 s for 64 KiB of empty ones.
    """
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"{len(data)} bytes of CBOR, at most {max_bytes} are read")
    check_form(data, max_items)
    try:
        return cbor2.loads(data, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False)
    except Exception as exc:  # bad UTF-8; cbor2 raises its own, Unicode, Value, Recursion and Memory errors
        raise RemoteProtocolError(f"not readable as CBOR: {type(exc).__name__}") from exc
