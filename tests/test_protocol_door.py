"""The door: four messages of fixed size, and nobody in without the swarm's key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_parts import identity

from protocol.link.admission import SwarmKey
from protocol.link.door import (
    ANSWER_BYTES,
    BOX_NONCE_BYTES,
    CHALLENGE_BYTES,
    KEY_PROOF_BYTES,
    KNOCK_BYTES,
    DoorError,
    DoorStatus,
    Doorway,
    Knock,
    door_box,
)

SWARM, OTHER = SwarmKey(bytes(range(32))), SwarmKey(bytes(32))
ME, HOME = identity(1).public_key, identity(2).public_key
NONCE, CHALLENGE, BOX_NONCE = b"n" * 32, b"c" * 32, b"b" * BOX_NONCE_BYTES


def knock_of(swarm: SwarmKey | None, listener: bytes = HOME, nonce: bytes = NONCE) -> Knock:
    return Knock(door_box(swarm), ME, listener, nonce)


def doorway_of(swarm: SwarmKey | None) -> Doorway:
    return Doorway(door_box(swarm), HOME)


@pytest.mark.parametrize("swarm", [SWARM, None])
def test_who_knows_the_key_is_let_in_and_knows_whom_it_reached(swarm: SwarmKey | None) -> None:
    knock, doorway = knock_of(swarm), doorway_of(swarm)
    first = knock.first()
    assert len(first) == KNOCK_BYTES and doorway.nonce_of(first) == NONCE
    proof = knock.proof(CHALLENGE, BOX_NONCE)
    assert len(proof) == KEY_PROOF_BYTES and ME not in proof
    assert doorway.dialler_of(NONCE, CHALLENGE, proof) == ME
    answer = doorway.answer(NONCE, CHALLENGE, BOX_NONCE)
    assert len(answer) == ANSWER_BYTES
    knock.check(CHALLENGE, answer)


@pytest.mark.parametrize(
    ("knock", "nonce", "challenge", "status"),
    [
        (knock_of(OTHER), NONCE, CHALLENGE, DoorStatus.OTHER_KEY),
        (knock_of(None), NONCE, CHALLENGE, DoorStatus.OTHER_KEY),
        (knock_of(SWARM), NONCE, b"d" * CHALLENGE_BYTES, DoorStatus.OTHER_KEY),
        (knock_of(SWARM), b"m" * 32, CHALLENGE, DoorStatus.OTHER_KEY),
        (knock_of(SWARM, listener=identity(3).public_key), NONCE, CHALLENGE, DoorStatus.OTHER_NODE),
    ],
    ids=["another key", "no key", "replayed to another challenge", "another knock", "meant for another node"],
)
def test_a_proof_is_good_for_one_door_once(knock: Knock, nonce: bytes, challenge: bytes, status: DoorStatus) -> None:
    with pytest.raises(DoorError) as refused:
        doorway_of(SWARM).dialler_of(nonce, challenge, knock.proof(CHALLENGE, BOX_NONCE))
    assert refused.value.status is status


@pytest.mark.parametrize("status", [status for status in DoorStatus if status is not DoorStatus.OPEN])
def test_a_refusal_is_as_long_as_an_answer_and_says_why(status: DoorStatus) -> None:
    refusal = doorway_of(SWARM).refusal(status)
    assert len(refusal) == ANSWER_BYTES
    with pytest.raises(DoorError) as refused:
        knock_of(SWARM).check(CHALLENGE, refusal)
    assert refused.value.status is status and str(refused.value)


def test_a_listener_that_does_not_know_the_key_is_found_out() -> None:
    knock = knock_of(SWARM)
    for answer in (
        doorway_of(OTHER).answer(NONCE, CHALLENGE, BOX_NONCE),
        doorway_of(SWARM).answer(NONCE, b"x" * 32, BOX_NONCE),
        bytes([DoorStatus.OPEN]) + bytes(ANSWER_BYTES - 1),
    ):
        with pytest.raises(DoorError):
            knock.check(CHALLENGE, answer)


def test_a_proof_is_no_answer() -> None:
    """What a listener seals differs in length from what a dialler does: nothing can be sent back as it came."""
    assert KEY_PROOF_BYTES != ANSWER_BYTES - 1


@given(st.binary(max_size=2 * KNOCK_BYTES), st.binary(max_size=2 * KEY_PROOF_BYTES), st.binary(min_size=ANSWER_BYTES))
def test_whatever_comes_is_refused_as_the_other_sides_fault(first: bytes, proof: bytes, answer: bytes) -> None:
    with pytest.raises(DoorError):
        doorway_of(SWARM).nonce_of(first)
    with pytest.raises(DoorError):
        doorway_of(SWARM).dialler_of(NONCE, CHALLENGE, proof)
    with pytest.raises(DoorError):
        knock_of(SWARM).check(CHALLENGE, answer[:ANSWER_BYTES])
