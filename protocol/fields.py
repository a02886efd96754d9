"""Typed reads from an untrusted map: they raise RemoteProtocolError where a value has the wrong kind or size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.errors import RemoteProtocolError


def take_bytes(fields: Mapping[int, Any], key: int, length: int) -> bytes:
    """Exactly `length` bytes at `key`."""
    value = fields.get(key)
    if not isinstance(value, bytes) or len(value) != length:
        raise RemoteProtocolError(f"field {key} is not {length} bytes")
    return value


def take_integer(fields: Mapping[int, Any], key: int, low: int, high: int) -> int:
    """An integer in `[low, high]` at `key`; a boolean is not an integer."""
    value = fields.get(key)
    if type(value) is not int or not low <= value <= high:
        raise RemoteProtocolError(f"field {key} is not an integer from {low} to {high}")
    return value


def take_text(fields: Mapping[int, Any], key: int, max_characters: int) -> str:
    """Printable text of at most `max_characters` at `key`."""
    value = fields.get(key)
    if not isinstance(value, str) or len(value) > max_characters or not value.isprintable():
        raise RemoteProtocolError(f"field {key} is not printable text of at most {max_characters} characters")
    return value


def take_list(fields: Mapping[int, Any], key: int, max_length: int) -> list[Any]:
    """A list of at most `max_length` entries at `key`."""
    value = fields.get(key)
    if not isinstance(value, list) or len(value) > max_length:
        raise RemoteProtocolError(f"field {key} is not a list of at most {max_length} entries")
    return value


def take_integers(fields: Mapping[int, Any], key: int, max_length: int, low: int, high: int) -> tuple[int, ...]:
    """A list of integers in `[low, high]` at `key`."""
    return tuple(take_integer({key: value}, key, low, high) for value in take_list(fields, key, max_length))


def take_texts(fields: Mapping[int, Any], key: int, max_length: int, max_characters: int) -> tuple[str, ...]:
    """A list of printable texts at `key`."""
    return tuple(take_text({key: value}, key, max_characters) for value in take_list(fields, key, max_length))
