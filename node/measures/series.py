"""A figure that is measured again and again: its mean, median, minimum and 95th percentile."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

WINDOW = 64
"""Number of remembered samples."""
WEIGHT = 0.2
"""Weight of the newest sample in the exponentially weighted mean."""
MIN_SAMPLES = 8
"""Below this many samples a percentile says nothing."""


class Mean:
    """The exponentially weighted mean of a figure. Not thread-safe."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean: float | None = None
        """None before the first sample."""

    def add(self, sample: float) -> None:
        """Add a measurement."""
        self.mean = sample if self.mean is None else self.mean + WEIGHT * (sample - self.mean)


class Series(Mean):
    """The last samples of a figure, too."""

    __slots__ = ("_ordered", "_samples")

    def __init__(self) -> None:
        super().__init__()
        self._samples: deque[float] = deque()
        self._ordered: list[float] = []
        """The same in order: it is asked far more often than it is added to."""

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: float) -> None:
        """Add a measurement."""
        if len(self._samples) == WINDOW:
            del self._ordered[bisect_left(self._ordered, self._samples.popleft())]
        self._samples.append(sample)
        insort(self._ordered, sample)
        super().add(sample)

    @property
    def median(self) -> float | None:
        """Of the samples remembered; None where there is none."""
        return self._ordered[len(self._ordered) // 2] if self._ordered else None

    @property
    def least(self) -> float | None:
        """Of the samples remembered; None where there is none."""
        return self._ordered[0] if self._ordered else None

    @property
    def percentile_95(self) -> float | None:
        """Of the samples remembered; None where they are too few to say."""
        if len(self._ordered) < MIN_SAMPLES:
            return None
        return self._ordered[int(0.95 * (len(self._ordered) - 1))]
