"""The chance that somebody reads a row, by simulation and by formula.

An adversary runs a share `f` of all peers; it reads a row where it holds both places of the row's lane. Peers are
drawn independently (a large swarm); the choice by operator and subnet is not in it, since whoever pays for enough
addresses passes it. All draws come from one generator: the same seed gives the same figures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sides = tuple[tuple[bool, ...], tuple[bool, ...]]
"""Of the guards of A and of those of B, lane by lane, whether they are dishonest."""

BATCH = 1 << 22
"""Draws in memory at a time."""


@dataclass(frozen=True, slots=True)
class Habit:
    """How a client chooses guards."""

    name: str
    lanes: int = 1
    """Fixed lanes; the rows of a long prompt touch all of them."""
    sides: int = 2
    """Shares that have to meet: 2 in Kekahyde."""
    fresh: int = 1
    """How often the lanes are drawn anew in one session: 1 is sticky, 256 is fresh peers for each of 256 chunks."""
    free: bool = False
    """Whether any A may meet any B: guards of each role without fixed lanes."""
    crossed: bool = False
    """Whether each guard may also meet the guard of the other side in the lanes beside its own: stand-ins."""

    def formula(self, share: float) -> float:
        """The exact chance that at least one row is exposed in one session."""
        if self.crossed:
            return sum(self._chance(sides, share) for sides in _all_sides(self.lanes) if _meet(*sides))
        if self.free:
            return (1 - (1 - share) ** self.lanes) ** self.sides
        return 1 - (1 - share**self.sides) ** (self.lanes * self.fresh)

    def simulate(self, share: float, trials: int, rng: np.random.Generator) -> float:
        """The same, seen in so many sessions."""
        drawn = self.lanes * self.fresh
        exposed = done = 0
        while done < trials:
            count = min(trials - done, max(1, BATCH // (drawn * self.sides)))
            bad = rng.random((count, drawn, self.sides), dtype=np.float32) < share
            if self.crossed:
                bad = np.stack([bad[:, :, 0], _or_beside(bad[:, :, 1])], axis=2)
            hit = np.all(np.any(bad, axis=1), axis=1) if self.free else np.any(np.all(bad, axis=2), axis=1)
            exposed += int(hit.sum())
            done += count
        return exposed / trials

    @staticmethod
    def _chance(sides: Sides, share: float) -> float:
        """That exactly these guards are dishonest."""
        return math.prod(share if bad else 1 - share for side in sides for bad in side)


def _all_sides(lanes: int) -> Iterator[Sides]:
    """Which guards of A, and which of B, are dishonest: every way there is."""
    one = list(itertools.product((False, True), repeat=lanes))
    return itertools.product(one, one)


def _meet(pads: tuple[bool, ...], shares: tuple[bool, ...]) -> bool:
    """Whether a dishonest A has a dishonest B in its own lane or in one beside it; lanes lie in a ring."""
    lanes = len(pads)
    return any(pads[index] and any(shares[(index + step) % lanes] for step in (-1, 0, 1)) for index in range(lanes))


def _or_beside(bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`[trials, lanes]`: whether a guard, or that of the lane before or after, is dishonest."""
    nearby: NDArray[np.bool_] = bad | np.roll(bad, 1, axis=1) | np.roll(bad, -1, axis=1)
    return nearby


def rotation_formula(share: float, lanes: int, lifetime_days: tuple[float, float], days: float) -> float:
    """About the chance that some lane was exposed within so many days, guards being replaced one by one.

    A lane begins exposed with chance f^2. Each of its places is drawn anew after every lifetime; a draw exposes a
    lane that was not where the new guard and its partner are dishonest. Of such lanes a share f / (1 + f) has a
    dishonest partner there, so a draw exposes with chance f^2 / (1 + f). The number of draws is taken at its mean.
    """
    draws = 2 * mean_renewals(lifetime_days, days)
    safe = (1 - share**2) * (1 - share**2 / (1 + share)) ** draws
    return 1.0 - float(safe**lanes)


def mean_renewals(lifetime_days: tuple[float, float], days: float, step_days: float = 0.5) -> float:
    """How often a guard is replaced within so many days, on average: the renewal equation m = F + f * m."""
    low, high = lifetime_days
    times = np.arange(0.0, days + step_days, step_days)
    ended = np.clip((times - low) / (high - low), 0.0, 1.0)
    density = np.diff(ended, prepend=0.0)
    renewals = np.zeros_like(times)
    for index in range(1, len(times)):
        renewals[index] = ended[index] + density[1 : index + 1] @ renewals[index - 1 :: -1]
    return float(renewals[-1])


def rotation_simulated(
    share: float,
    lanes: int,
    lifetime_days: tuple[float, float],
    days: float,
    trials: int,
    rng: np.random.Generator,
) -> float:
    """The same, played through: lifetimes drawn evenly between the bounds, each place on its own."""
    shape = (trials, lanes, 2)
    bad = rng.random(shape, dtype=np.float32) < share
    until = _lifetimes(rng, lifetime_days, shape)
    exposed = np.any(np.all(bad, axis=2), axis=1)
    while (due := until < days).any():
        # The next change of each lane: the side that ends first is drawn anew, the other one is as it was.
        first = until == until.min(axis=2, keepdims=True)
        change = due & first
        bad = np.where(change, rng.random(shape, dtype=np.float32) < share, bad)
        until = np.where(change, until + _lifetimes(rng, lifetime_days, shape), until)
        exposed |= np.any(np.all(bad, axis=2), axis=1)
    return float(exposed.mean())


def _lifetimes(rng: np.random.Generator, bounds: tuple[float, float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rng.uniform(bounds[0], bounds[1], shape)
