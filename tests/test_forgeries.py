"""A short form of `scripts/forgeries`: some thousand of every kind, and the controls."""

from __future__ import annotations

from scripts.forging.forgeries import CONTROL_MIN, forge_all, table
from scripts.forging.kinds import KINDS

NUMBER = 2_000


def test_no_forgery_passes_and_weak_checks_let_pass_what_they_should() -> None:
    count = forge_all(NUMBER, seed=7)
    assert count.holds, "\n".join(table(count))
    assert count.tried.total() >= NUMBER and not count.accepted.total()
    assert all(count.tried[kind.name] for kind in KINDS)
    assert count.honest > NUMBER / 20 and not count.honest_refused and count.confirmed
    weak, double, known = count.controls
    assert weak.tried >= CONTROL_MIN and weak.accepted and double.accepted, "the count can see what passes"
    assert known.accepted == known.tried > 0
    count.accepted[KINDS[0].name] = 1
    assert not count.holds
