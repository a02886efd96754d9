"""Mutations of inputs, drawn from a generator with a seed: of the bytes, or of the values that they say."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

from scripts.fuzzing.forms import Form

INTEGERS = (-1, 0, 1, 2, 7, 23, 24, 127, 128, 255, 256, 511, 512, 513, 65535, 65536, 2**31 - 2, 2**31 - 1, 2**31)
WIDE = (2**32 - 1, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**400)
FLOATS = (0.0, -0.0, 0.5, 1e-30, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "\x00", "\n", "\ud800", "\U0001f600", "a" * 300, "../../etc/passwd", "%s{}{{7*7}}", "0" * 5000)
BYTES = (b"", b"\x00", bytes(16), bytes(31), bytes(32), bytes(33), b"\xff" * 64)
DEEP = 900
"""Levels of a list in a list: nearly as many as a JSON text may have."""

TOO_DEEP = 3000

Path = tuple[Any, ...]


def mutated(data: bytes, form: Form, chance: random.Random, max_bytes: int) -> bytes:
    """The input with a few changes; the same for the same state of the generator."""
    if chance.random() < 0.5:
        try:
            tree = form.open(data)
            for _ in range(1 + chance.randrange(3)):
                tree = changed(tree, chance)
            closed = form.close(tree)
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass
        else:
            return closed[:max_bytes]
    return scrambled(data, chance)[:max_bytes]


def scrambled(data: bytes, chance: random.Random) -> bytes:
    """Bits turned, pieces cut out, doubled, moved or replaced."""
    content = bytearray(data)
    for _ in range(1 + chance.randrange(4)):
        at = chance.randrange(len(content) + 1)
        piece = content[at : at + 1 + chance.randrange(16)]
        match chance.randrange(6):
            case 0 if content:
                content[at % len(content)] ^= 1 << chance.randrange(8)
            case 1:
                del content[at : at + len(piece)]
            case 2:
                content[at:at] = piece
            case 3:
                content[at:at] = chance.choice((b"\x00", b"\x7f", b"\x80", b"\xff", b"[", b"(", b'{"a":')) * _count(
                    chance
                )
            case 4:
                content[at : at + 8] = chance.choice(INTEGERS + WIDE[:7]).to_bytes(16, "little", signed=True)[:8]
            case _:
                content = content[:at]
    return bytes(content)


def _count(chance: random.Random) -> int:
    return 1 + chance.randrange(9) if chance.random() < 0.9 else TOO_DEEP


def changed(tree: Any, chance: random.Random) -> Any:
    """The tree, with one part of it replaced, removed, doubled, wrapped or moved."""
    paths = list(_paths(tree, ()))
    path = chance.choice(paths)
    if not path:
        return replacement(tree, chance)
    parent = _at(tree, path[:-1])
    match chance.randrange(6):
        case 0:
            del parent[path[-1]]
        case 1 if isinstance(parent, list):
            parent[path[-1] : path[-1]] = [parent[path[-1]]] * (1 + chance.randrange(20))
        case 2:
            parent[path[-1]] = copy.deepcopy(_at(tree, chance.choice(paths)))
        case 3 if isinstance(parent, dict):
            parent[_new_key(parent, chance)] = replacement(None, chance)
        case _:
            parent[path[-1]] = replacement(parent[path[-1]], chance)
    return tree


def replacement(value: Any, chance: random.Random) -> Any:
    """Another value in the place of one: often of its kind."""
    if chance.random() < 0.6:
        match value:
            case bool():
                return not value
            case int():
                return chance.choice([value + 1, value - 1, -value, value * 2, *INTEGERS, *WIDE])
            case float():
                return chance.choice([-value, value * 2, *FLOATS])
            case str():
                return chance.choice([value + value, value[:-1], value + chance.choice(TEXTS), *TEXTS])
            case bytes():
                return chance.choice([value[:-1], value + b"\x00", scrambled(value, chance), *BYTES])
            case list() | dict() if chance.random() < 0.3:
                return [value]
    return _any_value(chance)


def _any_value(chance: random.Random) -> Any:
    values: Sequence[Any] = chance.choice(
        [(None, True, False), INTEGERS, WIDE, FLOATS, TEXTS, BYTES, ([], {}, [[]], [None] * 40, {"a": 1}, {0: 0})]
    )
    value = copy.deepcopy(chance.choice(values))
    if chance.random() < 0.02:
        for _ in range(DEEP):
            value = [value]
    return value


def _new_key(mapping: dict[Any, Any], chance: random.Random) -> Any:
    if any(isinstance(key, str) for key in mapping):
        return chance.choice(["", "a", "\ud800", "b" * 70, "0" * 5000, *map(str, mapping)])
    return chance.choice([*range(12), 99, -1, 2**63])


def _paths(tree: Any, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _paths(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:200]):
            yield from _paths(value, (*path, index))


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree
