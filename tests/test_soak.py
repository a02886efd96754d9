"""A quarter of a minute of what `scripts/soak` does for an hour."""

from __future__ import annotations

import pytest

from scripts.soaking.soak import soak
from scripts.soaking.watch import Slope, slope

pytestmark = pytest.mark.swarm

MINUTES = 0.25


def test_random_faults_change_no_answer() -> None:
    faults, asked, dealt = soak(MINUTES, every_s=2.0, seed=2, say=False)
    assert not faults
    assert asked.answers and sum(dealt.values()) >= 3


def test_a_slope_is_that_of_the_line_through_the_points() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == Slope(2, 0)
    assert slope([(0, 4), (5, 4), (9, 4)]) == Slope(0, 0)
    assert slope([(3, 9)]) == slope([(3, 9), (3, 9), (3, 9)]) == Slope(0, 0)
    noisy = slope([(x, 2 * x + (-1) ** x) for x in range(100)])
    assert noisy.value == pytest.approx(2, abs=0.01) and 0 < noisy.error < 0.01
    assert noisy.exceeds(1.9) and not noisy.exceeds(2.0)
