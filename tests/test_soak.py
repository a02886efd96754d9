"""A quarter of a minute of what `scripts/soak` does for an hour."""

from __future__ import annotations

import pytest

from scripts.soaking.soak import soak
from scripts.soaking.watch import slope

pytestmark = pytest.mark.swarm

MINUTES = 0.25


def test_random_faults_change_no_answer() -> None:
    faults, asked, dealt = soak(MINUTES, every_s=2.0, seed=2, say=False)
    assert not faults
    assert asked.answers and sum(dealt.values()) >= 3


def test_a_slope_is_that_of_the_line_through_the_points() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(0, 4), (5, 4)]) == 0
    assert slope([(3, 9)]) == 0
