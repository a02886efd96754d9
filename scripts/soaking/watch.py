"""Resident memory and descriptors of processes against time, and whether they are flat."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from scripts.harness.swarm import NodeProcess

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment."""

    at_s: float
    """Seconds since the soak began."""
    resident_mib: float
    descriptors: int
    threads: int


class ProcessWatch:
    """Samples of one node that lives through the whole soak."""

    def __init__(self, node: NodeProcess) -> None:
        self._process = psutil.Process(node.process.pid)
        self._started = time.monotonic()
        self.samples: list[Sample] = []

    def look(self) -> Sample:
        """Take one more sample. Raises psutil.NoSuchProcess where the node is gone."""
        with self._process.oneshot():
            sample = Sample(
                time.monotonic() - self._started,
                self._process.memory_info().rss / MIB,
                self._process.num_fds(),
                self._process.num_threads(),
            )
        self.samples.append(sample)
        return sample

    @property
    def settled(self) -> list[Sample]:
        """Samples of the last half of the time."""
        return [sample for sample in self.samples if sample.at_s >= self.samples[-1].at_s / 2]

    @property
    def memory(self) -> Slope:
        """MiB a minute over the last half."""
        return slope([(sample.at_s / 60, sample.resident_mib) for sample in self.settled])

    @property
    def descriptors(self) -> Slope:
        """Descriptors a minute over the last half."""
        return slope([(sample.at_s / 60, float(sample.descriptors)) for sample in self.settled])

    @property
    def threads(self) -> Slope:
        """Threads a minute over the last half."""
        return slope([(sample.at_s / 60, float(sample.threads)) for sample in self.settled])

    def __str__(self) -> str:
        return f"memory {self.memory} MiB, descriptors {self.descriptors}, threads {self.threads} a minute"


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a line through points."""

    value: float
    error: float
    """Its standard error."""

    def exceeds(self, most: float) -> bool:
        """Whether it is above `most` by more than chance: two standard errors."""
        return self.value - 2 * self.error > most

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.error:.2f}"


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Of the straight line that fits best; 0 for fewer than three points."""
    if len(points) < 3:
        return Slope(0.0, 0.0)
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return Slope(0.0, 0.0)
    value = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    left = sum((y - mean_y - value * (x - mean_x)) ** 2 for x, y in points)
    return Slope(value, math.sqrt(left / (len(points) - 2) / spread))
