"""P-values and intervals against tables and worked examples of others."""

from __future__ import annotations

import numpy as np
import pytest

from node.audit.metadata import guess_labels, thirds
from node.audit.statistics import (
    at_least_one,
    auc,
    chi_square_p,
    fisher_p,
    kolmogorov_p,
    normal_p,
    wilson,
)


@pytest.mark.parametrize(
    ("statistic", "freedom", "p"),
    [
        (3.841459, 1, 0.05),
        (18.30704, 10, 0.05),
        (124.3421, 100, 0.05),
        (310.4574, 255, 0.01),
        (205.4207, 255, 0.99),
        (0.0, 255, 1.0),
    ],
)
def test_chi_square_is_that_of_the_tables(statistic: float, freedom: int, p: float) -> None:
    assert chi_square_p(statistic, freedom) == pytest.approx(p, abs=1e-6)


def test_a_chi_square_that_cannot_be_has_no_chance() -> None:
    assert chi_square_p(1e6, 255) == 0.0


@pytest.mark.parametrize(("z", "p"), [(0.0, 1.0), (1.959964, 0.05), (-2.575829, 0.01)])
def test_the_normal_distribution(z: float, p: float) -> None:
    assert normal_p(z) == pytest.approx(p, abs=1e-6)


def test_kolmogorov_and_smirnov() -> None:
    evenly = (np.arange(1000) + 0.5) / 1000
    assert kolmogorov_p(evenly) == 1.0
    distance = 1.3581 / (np.sqrt(1000) + 0.12 + 0.11 / np.sqrt(1000))  # the 5 % point of the tables
    shifted = np.clip(evenly + distance - 0.0005, 0, 1)
    assert kolmogorov_p(shifted) == pytest.approx(0.05, abs=0.002)
    assert kolmogorov_p(evenly**2) < 1e-9


def test_uniform_p_values_are_found_uniform_as_often_as_they_should_be() -> None:
    generator = np.random.default_rng(1)
    p_values = np.array([kolmogorov_p(generator.random(200)) for _ in range(500)])
    assert (p_values < 0.1).mean() == pytest.approx(0.1, abs=0.04)


def test_fisher_tastes_tea() -> None:
    assert fisher_p(3, 4, 1, 4) == pytest.approx(0.485714, abs=1e-6)
    assert fisher_p(0, 50, 0, 50) == 1.0 and fisher_p(20, 20, 0, 20) < 1e-9


def test_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_area_under_the_curve() -> None:
    first, second = np.arange(10.0) + 100, np.arange(12.0)
    assert auc(first, second).value == 1.0 and auc(second, first).value == 0.0 and auc(first, second).p < 1e-4
    same = auc(first, first)
    assert same.value == 0.5 and same.p == 1.0 and same.low < 0.5 < same.high
    assert auc(np.ones(5), np.ones(7)).p == 1.0, "only ties tell nothing"
    assert auc(np.array([3.0, 1.0]), np.array([2.0, 0.0])).value == 0.75


def test_the_least_of_many_p_values_is_no_wonder() -> None:
    assert at_least_one([0.01, 0.5]) == 0.02 and at_least_one([0.9, 0.8]) == 1.0 and at_least_one([]) == 1.0


def test_a_classifier_finds_what_figures_tell_and_nothing_else() -> None:
    generator = np.random.default_rng(2)
    lengths = generator.integers(4, 33, 120)
    labels = thirds(lengths.tolist())
    assert {labels.count(name) for name in ("short", "middle", "long")} <= set(range(30, 51))
    told = guess_labels(np.column_stack([generator.random((120, 8)), lengths]), labels, 500)
    assert told.right > 110 and told.p < 0.01, "one figure that tells is enough"
    nothing = guess_labels(generator.random((120, 9)), labels, 500)
    assert nothing.p > 1e-3 and nothing.right / 120 == pytest.approx(nothing.chance, abs=0.1)
