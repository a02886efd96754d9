"""The chance of exposure: simulation, formula and the design notes agree, and the seed settles the figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scripts.privacy_lab.exposure import HABITS, LIFETIME_DAYS, NOTES, SHARES, main
from scripts.privacy_lab.exposure_model import mean_renewals, rotation_formula, rotation_simulated

TRIALS = 20_000


def spread(chance: float, trials: int) -> float:
    """Four standard deviations of a simulated chance."""
    return 4 * math.sqrt(max(chance * (1 - chance), 1 / trials) / trials)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.name)
def test_simulation_formula_and_notes_agree(habit, share: float) -> None:  # type: ignore[no-untyped-def]
    trials = 2_000 if habit.fresh > 1 else TRIALS
    chance = habit.formula(share)
    assert habit.simulate(share, trials, np.random.default_rng(3)) == pytest.approx(
        chance, abs=spread(chance, trials)
    )
    if (habit.name, share) in NOTES:
        assert chance == pytest.approx(NOTES[habit.name, share], rel=0.05)


def test_all_that_the_notes_say_is_compared() -> None:
    named = {habit.name for habit in HABITS if not habit.crossed}  # stand-ins are not in the notes
    assert {name for name, _share in NOTES} == named and len(NOTES) == 11


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("days", [30.0, 365.0, 1500.0])
def test_rotation_by_formula_and_played_through(lanes: int, days: float) -> None:
    seen = rotation_simulated(0.1, lanes, LIFETIME_DAYS, days, TRIALS, np.random.default_rng(4))
    expected = rotation_formula(0.1, lanes, LIFETIME_DAYS, days)
    assert seen == pytest.approx(expected, abs=spread(expected, TRIALS) + 0.02 * expected)


def test_guards_that_last_are_replaced_as_often_as_they_should_be() -> None:
    assert mean_renewals((100.0, 200.0), 99.0) == 0
    assert mean_renewals((100.0, 200.0), 3_000.0) == pytest.approx(20, rel=0.03)


def test_the_same_seed_prints_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    printed = []
    for seed in ("1", "1", "2"):
        main(["--trials", "2000", "--seed", seed, "--months", "12"], standalone_mode=False)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2].replace("seed 2", "seed 1")
    assert "guards kept 180 to 360 days" in printed[0] and "strict: 0" in printed[0]
