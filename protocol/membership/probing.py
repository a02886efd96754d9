"""SWIM's probes: whose turn it is, which probes are under way, and whom this node pings on behalf of others.

A probe is a ping; without an answer in time, another, and three others are asked to ping; without an answer to any,
the peer becomes suspect. Any frame of a peer answers: no message needs to be matched.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from msgspec import Struct, field

from protocol.membership.key_set import KeySet

MAX_SCANNED = 16
"""Peers looked at to find one that needs a probe; the rest waits for the next turn."""
MAX_URGENT = 64
MAX_HELPING = 64
"""Probes on behalf of others at a time."""


class Probe(Struct):
    """A probe of this node's own that is under way."""

    number: int
    helpers: set[bytes] = field(default_factory=set)
    """Whom it asked to ping; empty while only the direct ping is out."""
    nacks: set[bytes] = field(default_factory=set)
    """Helpers that reported failure."""


class Help(Struct, frozen=True):
    """Somebody waits to hear whether a ping was answered."""

    requester: bytes
    number: int
    deadline: float


class Rotation:
    """Every peer once in random order, then again: a crash is found within a bounded time (SWIM section 4.3)."""

    def __init__(self) -> None:
        self._order: list[bytes] = []
        self._urgent: deque[bytes] = deque()

    def add(self, key: bytes, rng: random.Random) -> None:
        """A peer is new: it takes a random place in this round."""
        self._order.insert(rng.randrange(len(self._order) + 1), key)

    def hurry(self, key: bytes) -> None:
        """Probe this one next: there is a reason to doubt it."""
        if key not in self._urgent and len(self._urgent) < MAX_URGENT:
            self._urgent.append(key)

    def next(self, live: KeySet, rng: random.Random, needs_probe: Callable[[bytes], bool]) -> bytes | None:
        """Whom to probe now; None where all that were looked at are known to be well."""
        while self._urgent:
            key = self._urgent.popleft()
            if key in live:
                return key
        for _ in range(MAX_SCANNED):
            if not self._order:
                self._order = list(live)
                rng.shuffle(self._order)
                if not self._order:
                    return None
            key = self._order.pop()
            if key in live and needs_probe(key):
                return key
        return None


class Helping:
    """Pings on behalf of others, by the peer that was pinged."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[Help]] = {}
        self._count = 0

    def add(self, target: bytes, help_: Help) -> bool:
        """Remember whom to tell; False where this node has enough to do."""
        if self._count >= MAX_HELPING:
            return False
        self._waiting.setdefault(target, []).append(help_)
        self._count += 1
        return True

    def answered(self, target: bytes) -> list[Help]:
        """The target spoke: who waits for it."""
        done = self._waiting.pop(target, [])
        self._count -= len(done)
        return done

    def expired(self, target: bytes, now: float) -> list[Help]:
        """Who waited for the target, which did not answer."""
        done = [entry for entry in self._waiting.get(target, ()) if entry.deadline <= now]
        left = [entry for entry in self._waiting.get(target, ()) if entry.deadline > now]
        self._waiting[target] = left
        if not left:
            del self._waiting[target]
        self._count -= len(done)
        return done

    def next_deadline(self, target: bytes) -> float | None:
        return min((entry.deadline for entry in self._waiting.get(target, ())), default=None)
