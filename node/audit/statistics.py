"""P-values and intervals, each with its source. Numpy alone: the audit is part of the installed program."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

Z95 = 1.959963984540054
"""Half the width of a 95 % interval of the standard normal distribution."""
MAX_TERMS = 10_000
ENOUGH = 1e-15


def normal_p(z: float) -> float:
    """Two-sided p-value of a standard normal value."""
    return math.erfc(abs(z) / math.sqrt(2))


def chi_square_p(statistic: float, freedom: int) -> float:
    """Upper tail of the chi-square distribution: the incomplete gamma function Q(freedom / 2, statistic / 2), by its
    series or its continued fraction (Press et al., «Numerical Recipes», 3rd edition, section 6.2)."""
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    return max(0.0, 1 - scale * _series(a, x)) if x < a + 1 else scale * _fraction(a, x)


def _series(a: float, x: float) -> float:
    term = total = 1 / a
    for step in range(1, MAX_TERMS):
        term *= x / (a + step)
        total += term
        if term < total * ENOUGH:
            break
    return total


def _fraction(a: float, x: float) -> float:
    """Lentz's method."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    value = d
    for step in range(1, MAX_TERMS):
        numerator = -step * (step - a)
        b += 2
        d = 1 / (numerator * d + b or tiny)
        c = b + numerator / c or tiny
        value *= c * d
        if abs(c * d - 1) < ENOUGH:
            break
    return value


def kolmogorov_p(p_values: Numbers) -> float:
    """P-value of these values being uniform on 0..1: Kolmogorov and Smirnov, with the correction of Stephens 1970 for
    few values and the series of Kolmogorov 1933."""
    count = len(p_values)
    ordered, places = np.sort(p_values), np.arange(count)
    distance = float(max((ordered - places / count).max(), ((places + 1) / count - ordered).max()))
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    if scaled < 0.2:
        return 1.0  # the series converges slowly there, and its sum is 1
    terms = [math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * (sum(terms[::2]) - sum(terms[1::2]))))


def fisher_p(hits: int, count: int, other_hits: int, other_count: int) -> float:
    """Two-sided p-value of both proportions being one: Fisher's exact test, the sum over tables that are no likelier
    than the one that was seen."""
    total, both = count + other_count, hits + other_hits
    if not both or both == total:
        return 1.0

    def log_chance(first: int) -> float:
        return _log_choose(count, first) + _log_choose(other_count, both - first) - _log_choose(total, both)

    seen = log_chance(hits)
    tables = range(max(0, both - other_count), min(both, count) + 1)
    return min(1.0, sum(math.exp(chance) for chance in map(log_chance, tables) if chance <= seen + 1e-9))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    share, spread = hits / count, Z95 * Z95 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


class Auc(Struct, frozen=True):
    """How well scores tell two classes apart: the chance that a score of the first is above one of the second."""

    value: float
    low: float
    """The ends of the 95 % interval (Hanley and McNeil 1982)."""
    high: float
    p: float
    """Two-sided p-value of the value being 0.5 (Mann and Whitney 1947, with ties)."""
    count: int


def auc(first: Numbers, second: Numbers) -> Auc:
    """Compare the scores of two classes, each with one score at least."""
    m, n = len(first), len(second)
    together = np.concatenate([first, second])
    _values, places, counts = np.unique(together, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    value = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / ((m + n) * (m + n - 1))
    variance = (m + n + 1 - ties) / (12 * m * n)
    p = normal_p((value - 0.5) / math.sqrt(variance)) if variance > 0 else 1.0
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    spread = value * (1 - value) + (m - 1) * (q1 - value * value) + (n - 1) * (q2 - value * value)
    half = Z95 * math.sqrt(max(spread, 0.0) / (m * n))
    return Auc(value, max(0.0, value - half), min(1.0, value + half), p, m + n)


def at_least_one(p_values: list[float]) -> float:
    """P-value of the least of several p-values (Bonferroni)."""
    return min(1.0, min(p_values) * len(p_values)) if p_values else 1.0
