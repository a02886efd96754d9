"""Controls of the count: checks that are weak on purpose must let the predicted share of forgeries pass.

A wrong element passes a check whose vectors have one of S values in each place where the vectors are zero there: of
k such vectors all are with a chance of S^-k. Production has k = 3 and S = p.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from node.execution.gate import verify_result
from node.kernels.interface import Kernels
from protocol.linear.verification import UnitCheck
from scripts.forging.gate import ClientGate
from scripts.forging.kinds import ALL_KNOWN, KINDS, Scene
from scripts.forging.target import Target, Targets

SIGMAS = 4.5
"""A right count is further from its mean once in 150 000 runs."""
BATCH = 64
ONE_ELEMENT = next(kind for kind in KINDS if kind.name == "one element by any amount")


@dataclass(frozen=True, slots=True)
class Control:
    """What a weak check let pass."""

    name: str
    tried: int
    accepted: int
    share: float
    """The share that is expected to pass."""
    refused_honest: int = 0

    @property
    def expected(self) -> float:
        return self.tried * self.share

    @property
    def slack(self) -> float:
        """How far from that a right count may be."""
        return SIGMAS * math.sqrt(self.tried * self.share * (1 - self.share))

    @property
    def holds(self) -> bool:
        return abs(self.accepted - self.expected) <= self.slack and not self.refused_honest


def weak_control(
    targets: Targets, kernels: Kernels, random: np.random.Generator, count: int, k: int, s: int
) -> Control:
    """Forge single elements against `k` vectors of `s` values each, drawn anew for every forgery."""
    tried = accepted = refused = 0
    while tried < count:
        target = targets.next()
        checks = _weak_checks(target, kernels, k, s, BATCH)
        scene = Scene(target, random, kernels, next(checks), target.honest)
        refused += not verify_result(target.request, target.honest, scene.check, kernels)
        for check, forged in zip(checks, ONE_ELEMENT.forge(scene, BATCH - 1), strict=False):
            tried += 1
            accepted += verify_result(target.request, forged, check, kernels)
    return Control(f"{k} vector{'s' * (k > 1)} of {s} values", tried, accepted, float(s) ** -k, refused)


def _weak_checks(target: Target, kernels: Kernels, k: int, s: int, count: int) -> Iterator[UnitCheck]:
    """Checks of one unit as its tiles have them, but with vectors of few values."""
    weights = target.unit.weights
    drawn = (
        np.frombuffer(secrets.token_bytes(count * k * len(weights)), np.uint8).astype(np.uint32) % s
    )  # s divides 256
    vectors = drawn.reshape(count * k, len(weights))
    binding = target.request.binding
    whole = kernels.field_project(vectors, weights).reshape(count, k, -1)
    for vector, projection in zip(vectors.reshape(count, k, -1), whole, strict=True):
        tiles = np.zeros((binding.tile_end, *projection.shape), np.uint32)
        tiles[0] = projection  # a request is about all tiles, so only their sum counts
        yield UnitCheck(vector, tiles)


def known_control(
    targets: Targets, gate: ClientGate, kernels: Kernels, random: np.random.Generator, count: int
) -> Control:
    """Forge with all secret vectors in hand: every forgery passes, so nothing else refused the others."""
    tried = accepted = 0
    while tried < count:
        target = targets.next()
        scene = Scene(target, random, kernels, gate.check_of(target.unit), target.honest)
        for forged in ALL_KNOWN.forge(scene, 4):
            tried += 1
            accepted += gate.accepts(target, forged)
    return Control("all three vectors known", tried, accepted, 1.0)
