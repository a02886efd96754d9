"""What a peer has cost, whatever it does: without a clock, a socket or a second that passes."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from node.execution.account import (
    CREDIT_S,
    EXCUSED,
    FAILURE_S,
    REST_FIRST_S,
    REST_MAX_S,
    STEADY,
    TRIAL_S,
    UNASKED_LIMIT,
    Account,
    Reason,
)

ALLOWED_S = 0.012
LOCAL_S = 0.0001
START = 1000.0


def play(account: Account, waits: list[float], now: float = START) -> tuple[float, int, float]:
    """Chunk after chunk, each as late as the peer likes and as is waited for: seconds waited, chunks, and the end."""
    waited_s, asked = 0.0, 0
    for wanted_s in waits:
        if account.resting(now):
            now += LOCAL_S
            continue
        asked += 1
        wait_s = min(wanted_s, ALLOWED_S + account.left_s)
        now += wait_s
        waited_s += wait_s
        account.waited(wait_s, now)
        if wait_s == wanted_s:
            account.served(ALLOWED_S, now)
        else:
            account.look(now)
        now += LOCAL_S
    return waited_s, asked, now


@given(st.lists(st.floats(0, 3), max_size=400))
@settings(deadline=None)
def test_a_peer_costs_what_it_is_allowed_its_credit_and_its_trials(waits: list[float]) -> None:
    account = Account()
    waited_s, asked, _end = play(account, waits)
    leaves = math.log2(account.rest_s / REST_FIRST_S) + 1 if account.rest_s else 0
    assert waited_s <= asked * ALLOWED_S + CREDIT_S + leaves * TRIAL_S + 1e-6
    assert account.debt_s >= 0


@given(st.floats(ALLOWED_S * 1.5, 3))
@settings(deadline=None, max_examples=20)
def test_a_peer_that_is_always_late_is_tried_less_and_less(late_s: float) -> None:
    """In an hour: its credit, and ever rarer trials."""
    account, now, waited_s, asked = Account(), START, 0.0, 0
    while now < START + 3600:
        now = max(now, account.rests_until)
        more_s, chunks, now = play(account, [late_s], now)
        waited_s, asked = waited_s + more_s, asked + chunks
    assert account.rest_s == REST_MAX_S and account.reason is Reason.LATE
    trials = 3600 / REST_MAX_S + math.log2(REST_MAX_S / REST_FIRST_S) + 2
    assert waited_s - asked * ALLOWED_S <= CREDIT_S + trials * TRIAL_S
    assert waited_s < 0.02 * 3600


@given(st.lists(st.floats(0, ALLOWED_S), max_size=300))
@settings(deadline=None)
def test_a_peer_in_time_is_never_left(waits: list[float]) -> None:
    account = Account()
    _waited_s, asked, _end = play(account, waits)
    assert asked == len(waits) and account.left_for is None


def test_one_stall_is_forgiven_and_forgotten() -> None:
    account = Account()
    _waited_s, _asked, now = play(account, [0.9])
    assert account.left_for is None and account.debt_s > 0.8
    play(account, [0.001] * 200, now)
    assert account.debt_s == 0


def test_nobody_saves_up() -> None:
    account = Account()
    _waited_s, _asked, now = play(account, [0.0] * 10_000)
    waited_s, _asked, _now = play(account, [0.5] * 20, now)
    assert waited_s <= CREDIT_S + 20 * ALLOWED_S


def test_a_peer_that_recovers_is_used_again_and_in_good_standing() -> None:
    account = Account()
    _waited_s, _asked, now = play(account, [3.0])
    assert account.resting(now) and account.reason is Reason.LATE
    now = account.rests_until
    assert not account.resting(now) and account.left_s <= TRIAL_S + 1e-9
    _waited_s, asked, now = play(account, [0.001] * 60, now)
    assert asked == 60 and account.reason is None and account.left_for is Reason.LATE
    now += STEADY * account.rest_s + 1
    play(account, [3.0], now)
    assert account.rest_s == REST_FIRST_S, "it was steady for long"


def test_one_late_answer_on_trial_is_enough() -> None:
    account = Account()
    play(account, [3.0])
    waited_s, _asked, _now = play(account, [3.0, 3.0, 3.0], account.rests_until)
    assert account.rest_s == 2 * REST_FIRST_S and waited_s <= TRIAL_S + ALLOWED_S + 1e-9


def test_errors_are_not_listened_to_for_long() -> None:
    account = Account()
    errors = 0
    while not account.resting(START):
        account.failed(START)
        errors += 1
    assert errors <= CREDIT_S / FAILURE_S + 1 and account.reason is Reason.FAILING
    account.failed(account.rests_until)
    assert account.rest_s == 2 * REST_FIRST_S, "one error on trial is enough"


def test_an_error_now_and_then_is_forgiven() -> None:
    account = Account()
    for _ in range(1000):
        account.failed(START)
        for _ in range(9):
            account.served(ALLOWED_S, START)
    assert account.left_for is None


def test_what_nobody_asked_for_counts() -> None:
    account = Account()
    for _ in range(EXCUSED):
        account.heard_unasked(START)
    assert account.debt_s == 0, "answers to those who had the connection before"
    heard = 0
    while not account.resting(START):
        account.heard_unasked(START)
        heard += 1
    assert heard <= 51 and account.reason is Reason.NOISY and not account.floods
    for _ in range(UNASKED_LIMIT - heard):
        account.heard_unasked(START)
    assert account.floods


def test_an_account_without_end_leaves_nobody() -> None:
    account = Account(credit_s=math.inf)
    for _ in range(1000):
        account.failed(START)
    assert account.left_for is None
