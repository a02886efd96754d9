"""What pairing refuses: messages said again, guesses, attempts without end, words of others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import identity
from msgspec.structs import replace
from pairing_devices import Device, compare, deliver, fresh, pair

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.pairing.attempt import ANSWER_TIMEOUT_S, OWNER_TIMEOUT_S
from protocol.pairing.code import sign_consent, verify_consent
from protocol.pairing.messages import (
    PairAsk,
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
    Revoked,
    common_operator,
)
from protocol.pairing.states import PairState


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
