"""When a device computes for others: rules, hours, the month; and what it counts."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from made_parts import identity

from node.errors import ConfigError
from node.serving.lending import MAX_BORROWERS, Lending, LendingRules

NOON = time.mktime((2026, 11, 27, 12, 0, 0, 0, 0, -1))
NEXT_MONTH = time.mktime((2026, 12, 1, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("hours", "lends"), [(None, True), ((8, 18), True), ((12, 13), True), ((13, 12), False), ((22, 6), False)]
)
def test_hours_may_cross_midnight(hours: tuple[int, int] | None, lends: bool) -> None:
    lending = Lending(unix_s=lambda: NOON)
    lending.set_rules(LendingRules(hours=hours))
    assert (lending.refusal is None) is lends


def test_the_limit_is_of_a_calendar_month_and_outlives_a_restart(tmp_path: Path) -> None:
    path, now = tmp_path / "lending.json", [NOON]
    lending = Lending(path, lambda: now[0])
    lending.set_rules(LendingRules(monthly_bytes=100))
    lending.count(identity(1).peer_id, bytes(32), 1, 99)
    assert lending.refusal is None
    lending.count(identity(1).peer_id, bytes(32), 1, 1)
    assert lending.refusal == "its limit for this month is used up"
    lending.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Lending(path, lambda: now[0])
    assert again.refusal is not None and again.rules.monthly_bytes == 100
    now[0] = NEXT_MONTH
    assert again.refusal is None and again.as_json()["month_bytes"] == 0


def test_borrowers_are_counted_apart_and_are_bounded() -> None:
    lending = Lending(unix_s=lambda: NOON)
    for number in range(MAX_BORROWERS + 5):
        lending.count(identity(number % 200).peer_id, bytes([number // 200]) * 32, 2, 10)
    lending.count(identity(7).peer_id, bytes([0]) * 32, 3, 10)
    found = lending.borrowers()
    assert len(found) <= MAX_BORROWERS
    assert found[0].peer_id == identity(7).peer_id and found[0].rows == 5 and found[0].requests == 2


@pytest.mark.parametrize("hours", [(5, 5), (-1, 3), (0, 25)])
def test_hours_that_cannot_be_are_refused(hours: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="are not hours"):
        Lending().set_rules(LendingRules(hours=hours))


@pytest.mark.parametrize("text", ["", "{}", '{"rules": 1}', '{"rules": {"paused": true}}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lending.json").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        Lending(tmp_path / "lending.json")
