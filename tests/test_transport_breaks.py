"""When a thread that is asked for too much only listens."""

from node.serving.breaks import MIN_BREAK_S, RECENT_S, Breaks

PART_S = 0.0004


def worked_s(breaks: Breaks, seconds: float, single_every_s: float | None, now: float = 100.0) -> float:
    """Time used for others within so many seconds, where somebody asks for one thing at a time now and then."""
    until, used, single_at = now + seconds, 0.0, now
    while now < until:
        if single_every_s is not None and now >= single_at:
            breaks.saw_single(now)
            single_at = now + single_every_s
        elif breaks.left_s(now) > 0:
            now = min(now + breaks.left_s(now), until if single_every_s is None else single_at)
            continue
        now += PART_S
        used += PART_S
        breaks.worked(PART_S, now)
    return used


def test_nobody_rests_for_whoever_is_not_there() -> None:
    assert worked_s(Breaks(), 1.0, None) >= 1.0


def test_others_get_half_of_the_time_while_somebody_asks_for_one_thing_at_a_time() -> None:
    assert 0.4 <= worked_s(Breaks(), 1.0, RECENT_S / 2) <= 0.6


def test_a_break_ends_when_the_single_request_comes() -> None:
    breaks = Breaks()
    breaks.saw_single(1.0)
    breaks.worked(MIN_BREAK_S, 1.001)
    assert breaks.left_s(1.001) > 0
    breaks.saw_single(1.0012)
    assert breaks.left_s(1.0012) <= 0


def test_who_asked_long_ago_is_not_waited_for() -> None:
    breaks = Breaks()
    breaks.saw_single(1.0)
    breaks.worked(1.0, 1.0 + 2 * RECENT_S)
    assert breaks.left_s(1.0 + 2 * RECENT_S) <= 0
