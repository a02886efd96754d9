"""Pairing: two desks joined in memory, and everybody who may sit between them or on the wrong side of one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairing_devices import Device, compare, deliver

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.pairing.attempt import OWNER_TIMEOUT_S, REPEAT_S, Attempt
from protocol.pairing.code import Meeting
from protocol.pairing.messages import (
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairRefusal,
    PairRefuse,
    PairReveal,
    Unpair,
)
from protocol.pairing.pairing import (
    Revoked,
)
from protocol.pairing.states import OVER, TRANSITIONS, PairEvent, PairState


def test_two_devices_show_one_code_and_hold_each_others_word() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    code = a.code(b.peer_id)
    assert code == b.code(a.peer_id) and len(code) == 6 and code.isdigit()
    a.confirm(b.peer_id)
    b.confirm(a.peer_id)
    deliver(a, b)
    (mine,), (theirs,) = a.paired, b.paired
    assert mine.certificate == theirs.certificate and mine.operator == theirs.operator == a.desk.operator
    mine.certificate.verify()
    assert a.state(b.peer_id) is b.state(a.peer_id) is PairState.PAIRED and a.desk.active is None


def test_codes_are_spread_over_all_six_digits() -> None:
    codes = set()
    for seed in range(300):
        nonce = hashlib.blake2b(b"%d" % seed).digest()[:32]
        codes.add(Meeting(bytes(16), bytes(32), bytes(32), nonce, bytes(32)).code)
    assert len(codes) >= 298 and {code[0] for code in codes} == set("0123456789")


def test_an_owner_who_was_not_asked_gives_no_nonce_away() -> None:
    a, b = Device(1), Device(2)
    a.start(b.peer_id)
    deliver(a, b)
    assert b.state(a.peer_id) is PairState.OFFERED and b.outbox == [] and b.desk.active is None
    assert a.state(b.peer_id) is PairState.ASKED


def test_who_asks_at_the_same_time_meets_in_one_attempt() -> None:
    a, b = Device(1), Device(2)
    a.start(b.peer_id)
    b.start(a.peer_id)
    deliver(a, b)
    assert a.state(b.peer_id) is b.state(a.peer_id) is PairState.COMPARING
    assert a.code(b.peer_id) == b.code(a.peer_id)
    a.confirm(b.peer_id)
    b.confirm(a.peer_id)
    deliver(a, b)
    assert a.paired and b.paired


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64), st.booleans())
def test_a_man_in_the_middle_shows_two_codes(seed: int, asks_first: bool) -> None:
    """He holds one key towards each side and follows the protocol to the letter with both."""
    a, b = Device(1), Device(2)
    left, right = Device(seed % 1000 + 10), Device(seed % 1000 + 2000)
    if asks_first:
        right.start(b.peer_id)
        deliver(right, b)
    a.start(left.peer_id)
    deliver(a, left)
    if not asks_first:
        right.start(b.peer_id)
        deliver(right, b)
    b.start(right.peer_id)
    deliver(b, right)
    left.start(a.peer_id)
    deliver(a, left)
    assert a.state(left.peer_id) is b.state(right.peer_id) is PairState.COMPARING
    assert a.code(left.peer_id) != b.code(right.peer_id)


def test_a_man_in_the_middle_cannot_pass_nonces_on() -> None:
    """A commitment names both keys: one that was made for him does not open towards anybody else."""
    a, b, man = Device(1), Device(2), Device(3)
    a.start(man.peer_id)
    ask = a.outbox.pop().message
    b.receive(man.peer_id, ask)
    b.start(man.peer_id)
    answer = b.outbox.pop().message
    a.receive(man.peer_id, answer)
    reveal = a.outbox.pop().message
    b.receive(man.peer_id, reveal)
    assert b.state(man.peer_id) is PairState.ENDED and b.desk.attempts[man.peer_id].reason is PairRefusal.BROKEN
    assert a.code(man.peer_id) and not b.code(man.peer_id)


def test_an_answerer_cannot_choose_the_code() -> None:
    """Its nonce is fixed before it sees the asker's; a second one ends the attempt."""
    a, b = Device(1), Device(2)
    compare(a, b)
    attempt = a.desk.attempts[b.peer_id]
    code = attempt.code
    a.receive(b.peer_id, PairAnswer(attempt.attempt, bytes(32)))
    assert attempt.state is PairState.ENDED and attempt.code == code


def test_one_owner_alone_pairs_nothing() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    a.confirm(b.peer_id)
    deliver(a, b)
    assert a.state(b.peer_id) is PairState.CONFIRMED and b.state(a.peer_id) is PairState.CERTIFIED
    assert not a.paired and not b.paired
    for now in range(1, int(OWNER_TIMEOUT_S) + 3):
        a.tick(float(now))
        deliver(a, b, now=float(now))
    assert not a.paired and not b.paired
    assert a.state(b.peer_id) is b.state(a.peer_id) is PairState.ENDED
    with pytest.raises(LocalProtocolError):
        b.confirm(a.peer_id, "000000")


def test_another_code_ends_it_on_both_sides() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    wrong = f"{(int(a.code(b.peer_id)) + 1) % 10**6:06d}"
    b.confirm(a.peer_id, wrong)
    deliver(a, b)
    assert a.state(b.peer_id) is b.state(a.peer_id) is PairState.ENDED
    assert a.desk.attempts[b.peer_id].reason is PairRefusal.MISMATCH and a.desk.attempts[b.peer_id].ended_there


def test_a_confirmation_that_was_lost_is_said_again() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    a.confirm(b.peer_id)
    deliver(a, b)
    b.confirm(a.peer_id)
    b.outbox.clear()  # the link breaks just then: b is paired, a does not know
    assert b.paired and not a.paired
    a.tick(REPEAT_S)
    deliver(a, b, now=REPEAT_S)
    assert a.paired and a.paired[0].certificate == b.paired[0].certificate
    assert len(b.paired) == 1, "what is said again pairs nobody twice"


def test_a_slow_owner_may_hear_the_other_side_confirm_again_and_again() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    a.confirm(b.peer_id)
    deliver(a, b)
    for now in (REPEAT_S, 2 * REPEAT_S, 3 * REPEAT_S):
        a.tick(now)
        deliver(a, b, now=now)
    assert b.state(a.peer_id) is PairState.CERTIFIED and not b.outbox
    b.confirm(a.peer_id, now=4 * REPEAT_S)
    deliver(a, b, now=4 * REPEAT_S)
    assert a.paired and b.paired


def test_who_gave_up_waiting_takes_the_other_sides_pairing_back() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    a.confirm(b.peer_id)
    deliver(a, b)
    b.confirm(a.peer_id)
    b.outbox.clear()
    a.tick(OWNER_TIMEOUT_S + 1)
    a.outbox = [sent for sent in a.outbox if isinstance(sent.message, PairRefuse)]
    deliver(a, b)
    assert not a.paired and b.revoked == [Revoked(a.peer_id, b.paired[0].certificate.pairing)]


@pytest.mark.parametrize("state", list(PairState))
@pytest.mark.parametrize("event", list(PairEvent))
def test_every_event_in_every_state(state: PairState, event: PairEvent) -> None:
    """What the table allows moves the attempt; anything else ends it, or leaves what is over alone."""
    a, b = Device(1), Device(2)
    attempt = in_state(a, b, state)
    following = TRANSITIONS[state].get(event)
    if following is None:
        by_owner = event in (PairEvent.ASK, PairEvent.ACCEPT, PairEvent.CONFIRM)
        following = state if by_owner or state in OVER else PairState.ENDED
        if state is PairState.NEW and not by_owner:
            return  # there is no attempt yet that anything could happen to
    act(attempt, event, b)
    assert attempt.state is following


def in_state(a: Device, b: Device, state: PairState) -> Attempt:
    """The attempt of `a` with `b`, brought there by the shortest way."""
    if state is PairState.NEW:
        return Attempt(a.desk.identity, b.peer_id, bytes(16), bytes(16))
    if state in (PairState.OFFERED, PairState.ANSWERED):
        b.start(a.peer_id)
        deliver(a, b)
        if state is PairState.ANSWERED:
            a.start(b.peer_id)
            a.outbox.clear()
        return a.desk.attempts[b.peer_id]
    a.start(b.peer_id)
    if state is PairState.ENDED:
        a.take(a.desk.refuse(b.peer_id, 0.0))
    if state in (PairState.ASKED, PairState.ENDED):
        return a.desk.attempts[b.peer_id]
    deliver(a, b)
    b.start(a.peer_id)
    deliver(a, b)
    if state is PairState.CONFIRMED:
        a.confirm(b.peer_id)
    if state in (PairState.CERTIFIED, PairState.PAIRED):
        b.confirm(a.peer_id)
        deliver(a, b)
    if state is PairState.PAIRED:
        a.confirm(b.peer_id)
    return a.desk.attempts[b.peer_id]


def act(attempt: Attempt, event: PairEvent, other: Device) -> None:
    """Let one thing happen to an attempt; the message of an event checks wherever it can."""
    own = other.desk.attempts.get(attempt.identity.peer_id)
    name = attempt.attempt
    match event:
        case PairEvent.ASK | PairEvent.ACCEPT | PairEvent.CONFIRM:
            does = {
                PairEvent.ASK: lambda: attempt.ask(bytes(32), 0.0),
                PairEvent.ACCEPT: lambda: attempt.accept(bytes(32), 0.0),
                PairEvent.CONFIRM: lambda: attempt.confirm(attempt.code, 0.0),
            }
            if TRANSITIONS[attempt.state].get(event) is None:
                with pytest.raises(RemoteProtocolError):
                    does[event]()
            else:
                does[event]()
        case PairEvent.RECEIVE_ASK:
            attempt.receive(PairAsk(name, bytes(32)), 0.0)
        case PairEvent.RECEIVE_ANSWER:
            attempt.receive(PairAnswer(name, bytes(32)), 0.0)
        case PairEvent.RECEIVE_REVEAL:
            nonce = own._nonce if own is not None else bytes(32)
            attempt.receive(PairReveal(name, nonce), 0.0)
        case PairEvent.RECEIVE_CONFIRM:
            signature = bytes(64)
            if own is not None and own.meeting is not None:
                signature = own.identity.sign(b"kek/1 pairing", own._certified)
            attempt.receive(PairConfirm(name, signature, bytes(16), False), 0.0)
        case PairEvent.RECEIVE_REFUSE:
            attempt.receive(PairRefuse(name, PairRefusal.REFUSED), 0.0)
        case PairEvent.EXPIRE:
            attempt.tick(1e9)
        case PairEvent.REFUSE:
            attempt.end(PairRefusal.REFUSED, PairEvent.REFUSE, 0.0)
        case PairEvent.BREAK:
            attempt.receive(Unpair(bytes(32), False), 0.0)


def test_the_table_names_every_state_and_leads_out_of_each() -> None:
    assert set(TRANSITIONS) == set(PairState)
    for state in set(PairState) - OVER - {PairState.NEW}:
        assert {PairEvent.REFUSE, PairEvent.RECEIVE_REFUSE, PairEvent.EXPIRE, PairEvent.BREAK} <= set(
            TRANSITIONS[state]
        )
