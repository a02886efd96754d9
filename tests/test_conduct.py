"""Messages that are dropped before they are decoded, and peers that are kept out."""

import pytest
from made_parts import identity

from node.transport import conduct
from node.transport.conduct import (
    BURST_S,
    DROPPED_LIMIT,
    MALFORMED_LIMIT,
    MESSAGE_SHARE,
    PARDON_S,
    RECENT_S,
    UNKNOWN_LIMIT,
    Conduct,
)

ONE, OTHER, THIRD = (identity(index).peer_id for index in range(3))
COST_S = 0.0001


def flood(conduct_: Conduct, sender: str | None, seconds: float, now: float, beside: str | None = None) -> float:
    """Time that messages of a flood got, where somebody else sends a message every tenth of a second."""
    got, steps = 0.0, round(seconds / COST_S)
    for step in range(steps):
        at = now + step * COST_S
        if beside is not None and step % 1000 == 0:
            assert conduct_.may_send(beside, at), "who sends little is heard"  # type: ignore[arg-type]
            conduct_.spent(beside, COST_S, at)  # type: ignore[arg-type]
        if conduct_.may_send(sender, at):  # type: ignore[arg-type]
            conduct_.spent(sender, COST_S, at)  # type: ignore[arg-type]
            got += COST_S
    return got


def test_time_that_nobody_else_wants_is_anybodys() -> None:
    seen = Conduct()
    assert flood(seen, ONE, 5.0, 100.0) == pytest.approx(5.0)
    assert not seen.dropped


def test_a_flood_gets_its_part_of_the_time_while_others_send() -> None:
    seen = Conduct()
    got = flood(seen, ONE, 5.0, 100.0, beside=OTHER)
    assert 5.0 * MESSAGE_SHARE / 2 <= got <= 5.0 * MESSAGE_SHARE / 2 + 2 * BURST_S
    assert seen.dropped > 0


def test_whoever_uses_much_less_than_a_flood_is_heard_whatever_it_uses() -> None:
    """Ten peers share the time, one of them floods: another that is above its part, too, loses nothing."""
    seen, got, asked = Conduct(), 0, 0
    for step in range(20_000):
        now = 100.0 + step * COST_S
        if seen.may_send(ONE, now):
            seen.spent(ONE, COST_S, now)
        if step % 500 == 0:
            for index in range(10, 18):
                assert seen.may_send(identity(index).peer_id, now)
        if step % 60 == 0:
            asked += 1
            got += seen.may_send(OTHER, now)
            seen.spent(OTHER, COST_S, now)
    assert got == asked and seen.dropped


def test_who_is_not_let_in_has_one_part_together_and_members_are_heard() -> None:
    seen = Conduct()
    got = flood(seen, None, 5.0, 100.0, beside=OTHER)
    assert got <= 5.0 * MESSAGE_SHARE / 2 + 2 * BURST_S


def test_a_flood_that_has_ended_is_soon_forgotten() -> None:
    seen = Conduct()
    flood(seen, ONE, 2.0, 100.0, beside=OTHER)
    assert seen.is_shared(OTHER, 102.0)
    assert not seen.is_shared(OTHER, 104.0)
    assert seen.may_send(ONE, 104.0) and seen.may_send(OTHER, 104.0)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("malformed", MALFORMED_LIMIT), ("unknown", UNKNOWN_LIMIT), ("flooded", DROPPED_LIMIT)],
)
def test_whoever_breaks_rules_again_and_again_is_kept_out(kind: str, limit: int) -> None:
    seen = Conduct()
    fault = getattr(seen, kind)
    verdicts = [fault(ONE, 100.0) for _ in range(limit)]
    assert verdicts[-1] and not any(verdicts[:-1])
    assert not fault(ONE, 100.0), "it was said once"
    assert not fault(OTHER, 100.0)


def test_broken_rules_are_forgotten_over_time() -> None:
    seen = Conduct()
    step_s = 1.1 * PARDON_S / MALFORMED_LIMIT
    assert not any(seen.malformed(ONE, 100.0 + number * step_s) for number in range(10 * MALFORMED_LIMIT))


def test_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "MAX_KNOWN", 8)
    seen = Conduct()
    for index in range(100):
        assert seen.may_send(identity(index % 50).peer_id, 100.0 + index / 1000)
    assert len(seen._records) == 8 and len(seen._recent) <= 8


def test_whoever_sends_what_waits_for_its_turn_shares_the_thread() -> None:
    """Requests are accounted for where they are opened; that their sender is there counts all the same."""
    seen = Conduct()
    seen.spent(ONE, 1.0, 10.0)
    assert seen.may_send(ONE, 10.0)
    seen.sent(OTHER, 10.0)
    assert seen.is_shared(ONE, 10.0)
    assert not seen.may_send(ONE, 10.0) and seen.may_send(OTHER, 10.0)


def test_what_somebody_brings_counts_as_sent_by_whose_it_is() -> None:
    seen = Conduct()
    seen.sent(ONE, 10.0)
    seen.brought(ONE, OTHER, 10.0)
    assert not seen.is_shared(OTHER, 10.0) and seen.is_shared(ONE, 10.0)
    seen.spent(ONE, 1.0, 10.0)
    assert not seen.may_send(ONE, 10.0), "its messages take time all the same"


def test_whoever_brings_something_may_ask_too() -> None:
    seen = Conduct()
    seen.sent(ONE, 10.0)
    seen.opened(ONE, 10.0)
    for at in (10.1, 10.5):
        seen.sent(ONE, at)
        seen.brought(ONE, OTHER, at)
        assert seen.is_shared(OTHER, at)
    seen.sent(ONE, 10.0 + 1.1 * RECENT_S)
    seen.brought(ONE, OTHER, 10.0 + 1.1 * RECENT_S)
    assert not seen.is_shared(OTHER, 10.0 + 1.1 * RECENT_S), "he has asked for nothing for a while"
    seen.opened(ONE, 11.2)
    assert seen.is_shared(OTHER, 11.2)


def test_a_bearer_that_floods_is_measured_with_the_others() -> None:
    seen, modest = Conduct(), identity(3).peer_id
    for sender, seconds in ((ONE, 1.0), (modest, 0.2)):
        assert seen.may_send(sender, 10.0)
        seen.spent(sender, seconds, 10.0)
    seen.brought(ONE, OTHER, 10.0)
    assert seen.may_send(modest, 10.0) and not seen.may_send(ONE, 10.0)
