"""Checks that bytes are one item of our CBOR profile, in its one legal form, before anything is built from them.

One pass over the heads: each item is looked at once and counted, so the bound on items limits time and memory,
whatever the bytes are. Errors inside values (bad UTF-8) are left to whoever builds the values.
"""

from __future__ import annotations

import struct

from protocol.errors import RemoteProtocolError

MAX_DEPTH = 8
"""How deep items may be nested."""
MAX_KEYS_AND_FLOATS = 256
"""Most maps and lists together. They cost more than other items; no honest message has a quarter as many."""

_NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = range(1, 8)
_KEY_MAJORS = frozenset({0, _NEGATIVE, _TEXT})
_INLINE = 24
"""Arguments below are in the initial byte; 24 to 27 say that 1, 2, 4 or 8 bytes follow."""
_LEAST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
"""Smallest argument that needs this many bytes."""
_SHORT_LISTS = range(_ARRAY << 5, (_ARRAY << 5) + _INLINE)
_TOO_MANY_COSTLY = f"CBOR of more than {MAX_KEYS_AND_FLOATS} keys and floats"
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SHORTER = {26: ">e", 27: ">f"}
_NAN = b"\xf9\x7e\x00"


def _size_of(initial: int) -> int:
    """Length of an item that its initial byte describes completely; 0 where more bytes must be read."""
    major, argument = initial >> 5, initial & 31
    if argument >= _INLINE or _ARRAY <= major <= _TAG:
        return 0
    return 1 + argument if major in (_BYTES, _TEXT) else 1


def _width_of(initial: int) -> int:
    """Length of the head of a number or a string whose argument follows the initial byte; else 0."""
    info = initial & 31
    return 1 + (1 << (info - _INLINE)) if initial >> 5 < _ARRAY and info in _LEAST else 0


_SIZES = tuple(map(_size_of, range(256)))
_WIDTHS = tuple(map(_width_of, range(256)))
_LEASTS = tuple(_LEAST.get(initial & 31, 0) for initial in range(256))
_LENGTHS = tuple(int(initial >> 5 in (_BYTES, _TEXT)) for initial in range(256))
"""1 where the argument says how many bytes follow."""


def check_form(data: bytes, max_items: int) -> None:
    """Raises RemoteProtocolError where `data` is not one well-formed item in deterministic form, without tags, whose
    maps have integers and texts for keys, with at most `max_items` items in all (keys count)."""
    at, end, allowed, allowed_costly = 0, len(data), max_items - 1, MAX_KEYS_AND_FLOATS
    left, last_key = 1, None  # items to come in the container at hand; its latest key, None where it is no map
    outer: list[tuple[int, bytes | None]] = []
    while True:
        while not left:
            if not outer:
                if at != end:
                    raise RemoteProtocolError("CBOR whose lengths are not those of its bytes")
                return
            left, last_key = outer.pop()
        left -= 1
        if at >= end:
            raise RemoteProtocolError("CBOR that is cut off")
        begin, initial = at, data[at]
        if size := _SIZES[initial]:
            at += size
        elif width := _WIDTHS[initial]:
            at += width
            number = int.from_bytes(data[begin + 1 : at], "big")
            if number < _LEASTS[initial]:
                raise RemoteProtocolError("CBOR that is not in its deterministic form")
            at += number * _LENGTHS[initial]
        elif last_key is not None and left & 1:
            raise RemoteProtocolError("CBOR with a key that is neither an integer nor text")
        elif initial >> 5 == _OTHER:
            at = _end_of_other(data, at)
            allowed_costly -= 1
            if allowed_costly < 0:
                raise RemoteProtocolError(_TOO_MANY_COSTLY)
        else:
            number, at = (initial & 31, at + 1) if initial in _SHORT_LISTS else _length_of(data, at)
            if initial >> 5 == _MAP:
                allowed_costly -= number
                number *= 2
            allowed -= number
            if number > end - at:
                raise RemoteProtocolError("CBOR that is cut off")
            if allowed < 0:
                raise RemoteProtocolError(f"CBOR of more than {max_items} items")
            if allowed_costly < 0:
                raise RemoteProtocolError(_TOO_MANY_COSTLY)
            if number:
                if len(outer) >= MAX_DEPTH:
                    raise RemoteProtocolError(f"CBOR that is nested more than {MAX_DEPTH} deep")
                outer.append((left, last_key))
                left, last_key = number, b"" if initial >> 5 == _MAP else None
            continue
        if last_key is not None and left & 1:
            last_key = _key(data[begin:at], last_key)


def _key(key: bytes, before: bytes) -> bytes:
    """`key`, where it may follow `before` in a map: shorter keys come first, equally long ones in order of their
    bytes."""
    if key[0] >> 5 not in _KEY_MAJORS:
        raise RemoteProtocolError("CBOR with a key that is neither an integer nor text")
    if (len(key), key) <= (len(before), before):
        raise RemoteProtocolError("CBOR with keys that are double or out of order")
    return key


def _length_of(data: bytes, at: int) -> tuple[int, int]:
    """How many entries a list or a map has, and where its head ends."""
    initial = data[at]
    if initial >> 5 == _TAG:
        raise RemoteProtocolError("CBOR tags are not allowed")
    info = initial & 31
    if info < _INLINE and initial >> 5 in (_ARRAY, _MAP):
        return info, at + 1
    if info not in _LEAST:
        raise RemoteProtocolError("CBOR of indefinite length")
    behind = at + 1 + (1 << (info - _INLINE))
    number = int.from_bytes(data[at + 1 : behind], "big")
    if number < _LEAST[info]:
        raise RemoteProtocolError("CBOR that is not in its deterministic form")
    return number, behind


def _end_of_other(data: bytes, at: int) -> int:
    """Where a float or a simple value ends; it must have its shortest form."""
    info = data[at] & 31
    if info == _INLINE:
        if data[at + 1 : at + 2] < b"\x20":
            raise RemoteProtocolError("CBOR that is not in its deterministic form")
        return at + 2
    if info not in _FLOATS:
        raise RemoteProtocolError("CBOR of indefinite length")
    behind = at + 1 + (1 << (info - _INLINE))
    if behind > len(data):
        raise RemoteProtocolError("CBOR that is cut off")
    (value,) = struct.unpack(_FLOATS[info], data[at + 1 : behind])
    is_shortest = data[at:behind] == _NAN if value != value else not _fits(value, _SHORTER.get(info))
    if not is_shortest:
        raise RemoteProtocolError("CBOR that is not in its deterministic form")
    return behind


def _fits(value: float, form: str | None) -> bool:
    """Whether a shorter form holds a number exactly."""
    if form is None:
        return False
    try:
        return bool(struct.unpack(form, struct.pack(form, value))[0] == value)
    except OverflowError:
        return False
