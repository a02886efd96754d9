"""When a thread rests for the sake of who asks for one thing at a time; no clock."""

from __future__ import annotations

import pytest

from node.serving.breaks import LATE_GAPS, MIN_BREAK_S, MIN_PART_S, RECENT_S, SHORT_GAP_S, WORK_PART, Breaks

STEP_S = 0.0001


def rhythm(breaks: Breaks, gap_s: float, times: int, now: float = 10.0) -> float:
    """A single request comes each time so long after the one before was served; when the last was served."""
    for _ in range(times):
        breaks.look(True, now)
        breaks.look(False, now + STEP_S)
        now += STEP_S + gap_s
    return now - gap_s


def test_without_single_requests_nobody_rests() -> None:
    breaks = Breaks()
    for index in range(100):
        breaks.look(False, index * 0.001)
        breaks.worked(0.001, index * 0.001)
        assert breaks.left_s(index * 0.001) <= 0


@pytest.mark.parametrize("gap_s", [0.0005, 0.002, 0.01])
def test_the_thread_listens_when_the_next_single_request_is_expected(gap_s: float) -> None:
    breaks = Breaks()
    served = rhythm(breaks, gap_s, 201)
    assert breaks.left_s(served + 0.9 * WORK_PART * gap_s) <= 0, "others get the beginning of the gap"
    for part in (1.2 * WORK_PART, 1.0, 0.9 * LATE_GAPS):
        assert breaks.left_s(served + part * gap_s) == pytest.approx((LATE_GAPS - part) * gap_s, rel=0.1)
    assert breaks.left_s(served + 1.2 * LATE_GAPS * gap_s) <= 0


@pytest.mark.parametrize("gap_s", [0.0005, 0.002, 0.9 * SHORT_GAP_S, 1.1 * SHORT_GAP_S, 0.03])
def test_where_requests_come_fast_others_get_every_second_gap(gap_s: float) -> None:
    breaks, free = Breaks(), []
    served = rhythm(breaks, gap_s, 200)
    for _ in range(20):
        served = rhythm(breaks, gap_s, 1, served + gap_s)
        free.append(breaks.left_s(served + 0.5 * WORK_PART * gap_s) <= 0)
    assert free == ([True] * 20 if gap_s > SHORT_GAP_S else [True, False] * 10)


@pytest.mark.parametrize("gap_s", [0.0005, 0.002, 0.01])
def test_a_part_of_the_others_ends_before_a_single_request_is_expected(gap_s: float) -> None:
    breaks = Breaks()
    assert breaks.part_s(0.0) == float("inf"), "nobody asks for one thing at a time"
    served = rhythm(breaks, gap_s, 201)
    for part in (0.1, 0.5, 0.9):
        since_s = part * WORK_PART * gap_s
        expected_s = max(MIN_PART_S, WORK_PART * gap_s - since_s)
        assert breaks.part_s(served + since_s) == pytest.approx(expected_s, rel=0.1)
    assert breaks.part_s(served + 1.1 * LATE_GAPS * gap_s) == float("inf")


def test_requests_that_come_sooner_are_expected_sooner_at_once() -> None:
    breaks = Breaks()
    served = rhythm(breaks, 0.01, 50)
    served = rhythm(breaks, 0.001, 6, served + 0.01)
    assert breaks.left_s(served + 0.7 * 0.001) > 0


def test_while_a_single_request_waits_nobody_rests() -> None:
    breaks = Breaks()
    served = rhythm(breaks, 0.002, 10)
    breaks.look(True, served + 0.0015)
    assert breaks.left_s(served + 0.0015) <= 0


def test_where_none_comes_others_have_half_of_the_time_and_soon_all() -> None:
    breaks = Breaks()
    now = served = rhythm(breaks, 0.001, 11)
    worked_s = rested_s = 0.0
    while now < served + 0.9 * RECENT_S:
        breaks.look(False, now)
        if (left_s := breaks.left_s(now)) > 0:
            rested_s, now = rested_s + left_s, now + left_s + 1e-9
        else:
            now += STEP_S
            worked_s += STEP_S
            breaks.worked(STEP_S, now)
    assert rested_s == pytest.approx(worked_s, rel=0.1, abs=3 * MIN_BREAK_S)
    now = served + 1.1 * RECENT_S + MIN_BREAK_S
    for _ in range(100):
        breaks.look(False, now)
        assert breaks.left_s(now) <= 0
        now += STEP_S
        breaks.worked(STEP_S, now)


def test_a_pause_teaches_nothing() -> None:
    """After a pause longer than anybody is expected, the gap is what it was."""
    breaks = Breaks()
    served = rhythm(breaks, 0.002, 100)
    served = rhythm(breaks, 0.002, 1, served + 60.0)
    assert breaks.left_s(served + 0.002) > 0
