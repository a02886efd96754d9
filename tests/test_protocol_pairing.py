"""Pairing: two desks joined in memory, and everybody who may sit between them or on the wrong side of one."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import identity
from msgspec.structs import replace

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import PeerId
from protocol.pairing.attempt import ANSWER_TIMEOUT_S, OWNER_TIMEOUT_S, REPEAT_S, Attempt
from protocol.pairing.code import Meeting, sign_consent, verify_consent
from protocol.pairing.messages import (
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairingMessage,
    PairRefusal,
    PairRefuse,
    PairReveal,
    Unpair,
)
from protocol.pairing.pairing import (
    LOCK_S,
    MAX_FAILURES,
    MAX_FAILURES_A_PEER,
    MAX_OFFERS,
    MAX_REMEMBERED,
    PairAction,
    Paired,
    PairingDesk,
    Revoked,
    Send,
    common_operator,
)
from protocol.pairing.states import OVER, TRANSITIONS, PairEvent, PairState

_numbers = itertools.count()


def fresh(size: int) -> bytes:
    """Bytes that were never there before, the same in every run."""
    return hashlib.blake2b(b"%d" % next(_numbers), digest_size=size).digest()


@dataclass
class Device:
    """A desk, its owner's hands, and what came of it."""

    number: int
    desk: PairingDesk = field(init=False)
    outbox: list[Send] = field(default_factory=list)
    paired: list[Paired] = field(default_factory=list)
    revoked: list[Revoked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = PairingDesk(identity(self.number), self.number.to_bytes(16, "big"))

    @property
    def peer_id(self) -> PeerId:
        return self.desk.identity.peer_id

    def start(self, other: PeerId, now: float = 0.0) -> None:
        self.take(self.desk.start(other, fresh(16), fresh(32), now))

    def confirm(self, other: PeerId, code: str | None = None, now: float = 0.0) -> None:
        self.take(self.desk.confirm(other, self.code(other) if code is None else code, now))

    def receive(self, sender: PeerId, message: PairingMessage, now: float = 0.0) -> None:
        self.take(self.desk.receive(sender, message, now))

    def tick(self, now: float) -> None:
        self.take(self.desk.tick(now))

    def take(self, actions: list[PairAction]) -> None:
        self.outbox += [action for action in actions if isinstance(action, Send)]
        self.paired += [action for action in actions if isinstance(action, Paired)]
        self.revoked += [action for action in actions if isinstance(action, Revoked)]

    def code(self, other: PeerId) -> str:
        return self.desk.attempts[other].code

    def state(self, other: PeerId) -> PairState:
        return self.desk.attempts[other].state


def deliver(*devices: Device, now: float = 0.0) -> None:
    """Carry messages between devices until none is left."""
    by_id = {device.peer_id: device for device in devices}
    while any(device.outbox for device in devices):
        for device in devices:
            while device.outbox:
                sent = device.outbox.pop(0)
                by_id[sent.peer_id].receive(device.peer_id, sent.message, now)


def compare(a: Device, b: Device) -> None:
    """Bring an attempt of `a` to the point where both screens show a code."""
    a.start(b.peer_id)
    deliver(a, b)
    b.start(a.peer_id)
    deliver(a, b)


def pair(a: Device, b: Device) -> None:
    compare(a, b)
    a.confirm(b.peer_id)
    b.confirm(a.peer_id)
    deliver(a, b)


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


def transcripts() -> Iterator[tuple[Device, Device, list[PairingMessage]]]:
    """Everything that was ever said in two earlier pairings of the same devices, for who replays it."""
    a, b = Device(1), Device(2)
    heard: list[PairingMessage] = []
    for _ in range(2):
        a.desk.attempts.clear()
        b.desk.attempts.clear()
        a.start(b.peer_id)
        while a.outbox or b.outbox:
            for near, far in ((a, b), (b, a)):
                while near.outbox:
                    sent = near.outbox.pop(0)
                    heard.append(sent.message)
                    far.receive(near.peer_id, sent.message)
            if b.state(a.peer_id) is PairState.OFFERED:
                b.start(a.peer_id)
            if a.state(b.peer_id) is PairState.COMPARING and b.state(a.peer_id) is PairState.COMPARING:
                a.confirm(b.peer_id)
                b.confirm(a.peer_id)
    assert len(a.paired) == len(b.paired) == 2
    yield a, b, heard


REPLAYED = next(transcripts())[2]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(REPLAYED) + 5), st.booleans()), max_size=14), st.booleans())
def test_nothing_that_was_said_before_pairs_again(choices: list[tuple[int, bool]], owner_confirms: bool) -> None:
    """Old messages in any order and number, under the old or the current attempt's name, an owner who says yes to
    all: without the other owner's fresh signature nobody is paired."""
    b, sender = Device(2), identity(1).peer_id
    for index, renamed in choices:
        attempt = b.desk.attempts.get(sender)
        if index < len(REPLAYED):
            message = REPLAYED[index]
            if renamed and attempt is not None and not isinstance(message, Unpair):
                message = replace(message, attempt=attempt.attempt)
            b.receive(sender, message)
        elif attempt is None or attempt.state is PairState.OFFERED:
            b.start(sender)
        elif owner_confirms and attempt.state in (PairState.COMPARING, PairState.CERTIFIED):
            b.confirm(sender)
    assert not b.paired


def test_guesses_are_few_and_locked_out() -> None:
    a, b = Device(1), Device(2)
    for count in range(MAX_FAILURES_A_PEER):
        compare(a, b)
        b.take(b.desk.refuse(a.peer_id, float(count), mismatch=True))
        deliver(a, b)
    assert b.desk.locked_s(a.peer_id, 3.0) == pytest.approx(LOCK_S - 3)
    b.receive(a.peer_id, PairAsk(fresh(16), bytes(32)), 3.0)
    assert isinstance(b.outbox[-1].message, PairRefuse) and b.outbox.pop().message.reason is PairRefusal.LOCKED
    with pytest.raises(LocalProtocolError, match="wait"):
        b.start(a.peer_id, 4.0)
    b.start(Device(7).peer_id, 4.0)  # others are not locked out by it
    b.take(b.desk.refuse(Device(7).peer_id, 4.0))
    b.start(a.peer_id, LOCK_S + 3)
    assert b.state(a.peer_id) is PairState.ASKED


def test_many_keys_are_no_way_around_the_lock() -> None:
    b = Device(2)
    for number in range(MAX_FAILURES):
        other = Device(100 + number)
        compare(other, b)
        b.take(b.desk.refuse(other.peer_id, 0.0, mismatch=True))
        b.outbox.clear()
    with pytest.raises(LocalProtocolError, match="wait"):
        b.start(Device(99).peer_id, 1.0)


def test_attempts_that_showed_no_code_are_no_failures() -> None:
    a, b = Device(1), Device(2)
    for _ in range(2 * MAX_FAILURES):
        a.start(b.peer_id)
        a.take(a.desk.refuse(b.peer_id, 0.0))
        deliver(a, b)
    assert a.desk.locked_s(b.peer_id, 0.0) == b.desk.locked_s(a.peer_id, 0.0) == 0.0


def test_offers_and_memory_are_bounded() -> None:
    b = Device(2)
    askers = [identity(10 + number).peer_id for number in range(MAX_OFFERS + 1)]
    for peer_id in askers:
        b.receive(peer_id, PairAsk(fresh(16), bytes(32)))
    refusal = b.outbox.pop()
    assert refusal.peer_id == askers[-1] and isinstance(refusal.message, PairRefuse)
    assert refusal.message.reason is PairRefusal.BUSY
    for number in range(3 * MAX_REMEMBERED):
        peer_id = identity(1000 + number).peer_id
        b.start(peer_id, 1.0)
        b.take(b.desk.refuse(peer_id, 1.0))
    b.tick(1.0)
    assert len(b.desk.attempts) <= MAX_REMEMBERED + MAX_OFFERS


def test_one_attempt_at_a_time_and_never_with_itself() -> None:
    b = Device(2)
    b.start(identity(1).peer_id)
    with pytest.raises(LocalProtocolError, match="under way"):
        b.start(identity(3).peer_id)
    with pytest.raises(LocalProtocolError, match="itself"):
        b.start(b.peer_id)
    b.start(identity(1).peer_id)  # the same again changes nothing
    assert b.state(identity(1).peer_id) is PairState.ASKED


def test_a_second_ask_takes_the_place_of_the_first() -> None:
    a, b = Device(1), Device(2)
    compare(a, b)
    b.receive(a.peer_id, PairAsk(fresh(16), bytes(32)))
    assert b.state(a.peer_id) is PairState.OFFERED and b.desk.active is None
    assert isinstance(b.outbox[0].message, PairRefuse), "the first one is over for both"


def test_an_attempt_that_nobody_knows_is_said_to_be_unknown() -> None:
    a, b = Device(1), Device(2)
    b.receive(a.peer_id, PairReveal(fresh(16), bytes(32)))
    assert isinstance(b.outbox[0].message, PairRefuse) and b.outbox[0].message.reason is PairRefusal.UNKNOWN
    b.outbox.clear()
    b.receive(a.peer_id, PairRefuse(fresh(16), PairRefusal.UNKNOWN))
    assert not b.outbox, "a refusal is never answered"


def test_waiting_for_a_program_takes_less_patience_than_for_a_person() -> None:
    a, b = Device(1), Device(2)
    a.start(b.peer_id)
    deliver(a, b)
    b.start(a.peer_id)
    b.tick(ANSWER_TIMEOUT_S)
    assert b.state(a.peer_id) is PairState.ENDED
    a.tick(OWNER_TIMEOUT_S - 1)
    assert a.state(b.peer_id) is PairState.ASKED


def test_a_revocation_is_answered_once() -> None:
    a, b = Device(1), Device(2)
    b.receive(a.peer_id, Unpair(bytes(32), False))
    (answer,) = b.outbox
    assert answer.message == Unpair(bytes(32), True) and b.revoked == [Revoked(a.peer_id, bytes(32))]
    a.receive(b.peer_id, answer.message)
    assert not a.outbox


def test_consent_is_bound_to_owner_reader_and_pairing() -> None:
    owner, reader, pairing = identity(1), identity(2), fresh(32)
    signature = sign_consent(owner, pairing, reader.public_key)
    verify_consent(owner.public_key, pairing, reader.public_key, signature)
    for wrong in (
        (reader.public_key, pairing, owner.public_key),
        (owner.public_key, fresh(32), reader.public_key),
        (owner.public_key, pairing, identity(3).public_key),
    ):
        with pytest.raises(RemoteProtocolError):
            verify_consent(*wrong, signature)


def test_certificates_are_of_both_devices() -> None:
    a, b = Device(1), Device(2)
    pair(a, b)
    certificate = a.paired[0].certificate
    other = identity(3).public_key
    for forged in (
        replace(certificate, asker_signature=certificate.answerer_signature),
        replace(certificate, answerer_signature=bytes(64)),
        replace(certificate, pairing=bytes(32)),
        replace(certificate, answerer=other),
        replace(certificate, asker=certificate.answerer, answerer=certificate.asker),
    ):
        with pytest.raises(RemoteProtocolError):
            forged.verify()


def test_devices_of_one_owner_go_under_one_name() -> None:
    low, high, none = bytes([1] * 16), bytes([2] * 16), bytes(16)
    assert common_operator(low, high) == common_operator(high, low) == low
    assert common_operator(none, high) == common_operator(high, none) == high
