"""A set of peers, by public key, from which a random one can be drawn in constant time.

A list and its index: Python's own sets neither draw nor keep an order that a seed could replay.
"""

from __future__ import annotations

import random
from collections.abc import Iterator


class KeySet:
    """Keys in no particular but reproducible order."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._position: dict[bytes, int] = {}

    def add(self, key: bytes) -> None:
        if key not in self._position:
            self._position[key] = len(self._keys)
            self._keys.append(key)

    def discard(self, key: bytes) -> None:
        position = self._position.pop(key, None)
        if position is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[position] = last
            self._position[last] = position

    def sample(self, rng: random.Random, count: int) -> list[bytes]:
        """At most `count` different keys."""
        return rng.sample(self._keys, min(count, len(self._keys)))

    def __contains__(self, key: bytes) -> bool:
        return key in self._position

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)
