"""`scripts/exposure`: how likely a row of a prompt is exposed in `split`, by the share of dishonest peers.

Simulation beside formula beside the figures of the design notes. `strict` is not in it: there nobody outside holds a
pad, and the chance is 0 whatever the share.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from node.execution.lane import DEFAULT_MAX_LANES
from node.guards.rules import DAY_S, LIFETIME_S
from scripts.privacy_lab.exposure_model import Habit, rotation_formula, rotation_simulated

SHARES = (0.05, 0.1, 0.2)
FRESH = Habit("fresh peers, 256 chunks", fresh=256)
FREE = Habit("four guards a role, no lanes", lanes=4, free=True)
LANES = Habit("four fixed lanes", lanes=4)
ONE = Habit("one fixed lane", lanes=1)
CROSSED = Habit("four fixed lanes and stand-ins (thin clients)", lanes=4, crossed=True)
THREE = Habit("one lane, three shares (not offered)", sides=3)
HABITS = (FRESH, FREE, LANES, CROSSED, ONE, THREE)

NOTES: dict[tuple[str, float], float] = {
    (ONE.name, 0.05): 0.0025,
    (ONE.name, 0.1): 0.01,
    (ONE.name, 0.2): 0.04,
    (FRESH.name, 0.05): 0.47,
    (FRESH.name, 0.1): 0.92,
    (FRESH.name, 0.2): 1.0,
    (FREE.name, 0.1): 0.118,
    (LANES.name, 0.1): 0.039,
    (THREE.name, 0.05): 0.00013,
    (THREE.name, 0.1): 0.001,
    (THREE.name, 0.2): 0.008,
}
"""The Kekahyde design notes: chance that at least one row is exposed in one session, for a habit and a share of
dishonest peers, as given there (two or three digits)."""

LIFETIME_DAYS = (LIFETIME_S[0] / DAY_S, LIFETIME_S[1] / DAY_S)
MONTH_DAYS = 30.0


@click.command()
@click.option("--trials", type=click.IntRange(100), default=100_000, show_default=True, help="Sessions simulated.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--months", type=click.IntRange(1), multiple=True, default=(1, 6, 12, 24), show_default=True)
def main(trials: int, seed: int, months: Sequence[int]) -> None:
    """Print the chances."""
    console = Console(highlight=False)
    rng = np.random.default_rng(seed)
    console.print(f"{trials} trials each, seed {seed}; an exposed row: its lane's two guards are both dishonest\n")
    console.print(sessions_table(trials, rng))
    console.print(rotation_table(trials, months, rng))
    console.print("strict: 0 at every share, since no peer holds a pad")


def sessions_table(trials: int, rng: np.random.Generator) -> Table:
    """One session: simulated, by formula, in the design notes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="one session: at least one row exposed")
    table.add_column("habit")
    for share in SHARES:
        for heading in (f"f = {share:g}", "formula", "notes"):
            table.add_column(heading, justify="right")
    for habit in HABITS:
        cells = []
        for share in SHARES:
            cells += [percent(habit.simulate(share, trials, rng)), percent(habit.formula(share))]
            cells.append(percent(NOTES[habit.name, share]) if (habit.name, share) in NOTES else "–")
        table.add_row(habit.name, *cells)
    return table


def rotation_table(trials: int, months: Sequence[int], rng: np.random.Generator) -> Table:
    """Months of daily use: guards are replaced, and every new one is another chance."""
    title = f"guards kept {LIFETIME_DAYS[0]:g} to {LIFETIME_DAYS[1]:g} days: some lane exposed at some time"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title)
    table.add_column("lanes", justify="right")
    table.add_column("months", justify="right")
    for share in SHARES:
        for heading in (f"f = {share:g}", "formula"):
            table.add_column(heading, justify="right")
    for lanes in (1, DEFAULT_MAX_LANES):
        for month in months:
            days, cells = month * MONTH_DAYS, []
            for share in SHARES:
                seen = rotation_simulated(share, lanes, LIFETIME_DAYS, days, max(trials // 4, 100), rng)
                cells += [percent(seen), percent(rotation_formula(share, lanes, LIFETIME_DAYS, days))]
            table.add_row(str(lanes), str(month), *cells)
    return table


def percent(chance: float) -> str:
    """Two digits that count."""
    return f"{100 * chance:.2g} %" if chance < 0.995 else "≈100 %" if chance < 1 else "100 %"


if __name__ == "__main__":
    main(prog_name="scripts/exposure")
