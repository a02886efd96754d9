"""Every state and every event of a link, and every way in which a hello can be a lie."""

import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.errors import LocalProtocolError, RemoteProtocolError, SwarmKeyError
from protocol.identity import Identity, PeerId, curve_public_key_of
from protocol.linear.messages import LinearResult
from protocol.link.admission import SwarmKey
from protocol.link.handshake import TRANSITIONS, Handshake, HandshakeError, LinkEvent, LinkState, Side, event_of
from protocol.link.hello import Hello, HelloOk
from protocol.link.messages import Attach, GoAway, Pong
from protocol.message import Cancel, ErrorCode, ErrorReply, Message, Ping

ME, OTHER = Identity.from_seed(bytes(32)), Identity.from_seed(bytes([1] * 32))
HELLO = Hello(ME.public_key, (1,), "test", (), 0, (), 0, (1,), bytes(16))
HELLO_OK = HelloOk(**{name: getattr(HELLO, name) for name in HELLO.__struct_fields__})

# What is legal, written down a second time: anything that is not here is refused.
LEGAL = {
    (Side.DIALLER, LinkState.NEW, LinkEvent.SEND_HELLO): LinkState.HELLO_SENT,
    (Side.DIALLER, LinkState.NEW, LinkEvent.LOST): LinkState.CLOSED,
    (Side.DIALLER, LinkState.HELLO_SENT, LinkEvent.RECEIVE_HELLO_OK): LinkState.OPEN,
    (Side.DIALLER, LinkState.HELLO_SENT, LinkEvent.RECEIVE_ERROR): LinkState.CLOSED,
    (Side.DIALLER, LinkState.HELLO_SENT, LinkEvent.LOST): LinkState.CLOSED,
    (Side.DIALLER, LinkState.OPEN, LinkEvent.SEND_HELLO): LinkState.HELLO_SENT,
    (Side.DIALLER, LinkState.OPEN, LinkEvent.RECEIVE_OTHER): LinkState.OPEN,
    (Side.DIALLER, LinkState.OPEN, LinkEvent.RECEIVE_ERROR): LinkState.OPEN,
    (Side.DIALLER, LinkState.OPEN, LinkEvent.RECEIVE_GOAWAY): LinkState.CLOSED,
    (Side.DIALLER, LinkState.OPEN, LinkEvent.LOST): LinkState.CLOSED,
    (Side.DIALLER, LinkState.CLOSED, LinkEvent.SEND_HELLO): LinkState.HELLO_SENT,
    (Side.LISTENER, LinkState.NEW, LinkEvent.RECEIVE_HELLO): LinkState.OPEN,
    (Side.LISTENER, LinkState.NEW, LinkEvent.LOST): LinkState.CLOSED,
    (Side.LISTENER, LinkState.OPEN, LinkEvent.RECEIVE_HELLO): LinkState.OPEN,
    (Side.LISTENER, LinkState.OPEN, LinkEvent.RECEIVE_OTHER): LinkState.OPEN,
    (Side.LISTENER, LinkState.OPEN, LinkEvent.RECEIVE_ERROR): LinkState.OPEN,
    (Side.LISTENER, LinkState.OPEN, LinkEvent.RECEIVE_GOAWAY): LinkState.CLOSED,
    (Side.LISTENER, LinkState.OPEN, LinkEvent.LOST): LinkState.CLOSED,
    (Side.LISTENER, LinkState.CLOSED, LinkEvent.RECEIVE_HELLO): LinkState.OPEN,
}
MESSAGES: dict[LinkEvent, list[Message]] = {
    LinkEvent.RECEIVE_HELLO: [HELLO],
    LinkEvent.RECEIVE_HELLO_OK: [HELLO_OK],
    LinkEvent.RECEIVE_ERROR: [ErrorReply(100, "")],
    LinkEvent.RECEIVE_GOAWAY: [GoAway("")],
    LinkEvent.RECEIVE_OTHER: [Ping(), Pong(0), Attach(), Cancel(1), LinearResult(bytes(32), 0, None)],  # type: ignore[arg-type]
}
STATES = [(side, state) for side in Side for state in LinkState if state in TRANSITIONS[side]]


def test_the_table_is_the_one_that_was_agreed() -> None:
    table = {
        (side, state, event): following
        for side, states in TRANSITIONS.items()
        for state, events in states.items()
        for event, following in events.items()
    }
    assert table == LEGAL


def test_every_state_that_a_link_can_reach_has_a_row() -> None:
    for states in TRANSITIONS.values():
        reachable = {LinkState.NEW} | {following for events in states.values() for following in events.values()}
        assert reachable <= set(states)


@pytest.mark.parametrize("kind", MESSAGES)
def test_messages_map_to_their_event(kind: LinkEvent) -> None:
    assert {event_of(message) for message in MESSAGES[kind]} == {kind}


@pytest.mark.parametrize(("where", "event"), list(itertools.product(STATES, LinkEvent)))
def test_every_state_and_event(where: tuple[Side, LinkState], event: LinkEvent) -> None:
    side, state = where
    following = LEGAL.get((side, state, event))
    if event is LinkEvent.LOST:
        assert TRANSITIONS[side].get(state, {}).get(event) is following
        return
    if event is LinkEvent.SEND_HELLO:
        link = Handshake(side, OTHER.public_key, expected_peer=ME.peer_id, state=state)
        if following is None:
            with pytest.raises(LocalProtocolError):
                link.say_hello(HELLO)
        else:
            link.say_hello(HELLO)
        assert link.state is (following or state)
        return
    for message in MESSAGES[event]:
        link = Handshake(side, OTHER.public_key, expected_peer=ME.peer_id, state=state)
        if following is None:
            with pytest.raises(HandshakeError) as refusal:
                link.receive(message, ME.curve_public_key)
            assert refusal.value.code is ErrorCode.NO_SESSION
            assert link.peer is None
        else:
            link.receive(message, ME.curve_public_key)
        assert link.state is (following or state)


def refusal_of(link: Handshake, hello: Hello, curve_key: bytes = ME.curve_public_key) -> HandshakeError:
    before = (link.state, link.peer)
    with pytest.raises(HandshakeError) as refusal:
        link.receive(hello, curve_key)
    assert (link.state, link.peer) == before
    return refusal.value


def test_a_good_hello_names_the_peer() -> None:
    link = Handshake(Side.LISTENER, OTHER.public_key)
    assert link.peer_id is None
    link.receive(HELLO, ME.curve_public_key)
    assert link.peer_id == ME.peer_id


@pytest.mark.parametrize("versions", [(), (0,), (2,), (2, 3), (65535,)])
def test_another_version_is_refused_in_words(versions: tuple[int, ...]) -> None:
    refusal = refusal_of(Handshake(Side.LISTENER, OTHER.public_key), replace(HELLO, versions=versions))
    assert refusal.code is ErrorCode.PRECONDITION
    assert "kek/1" in str(refusal)
    assert len(str(refusal)) < 200


def test_one_common_version_is_enough() -> None:
    Handshake(Side.LISTENER, OTHER.public_key).receive(replace(HELLO, versions=(7, 1)), ME.curve_public_key)


def test_a_key_that_is_not_the_connections_is_refused() -> None:
    refusal = refusal_of(Handshake(Side.LISTENER, OTHER.public_key), HELLO, OTHER.curve_public_key)
    assert refusal.code is ErrorCode.UNAUTHENTICATED


def test_the_dialler_takes_only_whom_it_dialled() -> None:
    link = Handshake(Side.DIALLER, OTHER.public_key, expected_peer=OTHER.peer_id, state=LinkState.HELLO_SENT)
    assert refusal_of(link, HELLO_OK).code is ErrorCode.UNAUTHENTICATED


def test_the_twin_of_a_key_is_another_identity() -> None:
    twin = ME.public_key[:31] + bytes([ME.public_key[31] ^ 0x80])
    assert curve_public_key_of(twin) == ME.curve_public_key
    dialler = Handshake(Side.DIALLER, OTHER.public_key, expected_peer=ME.peer_id, state=LinkState.HELLO_SENT)
    assert refusal_of(dialler, replace(HELLO_OK, public_key=twin)).code is ErrorCode.UNAUTHENTICATED
    link = Handshake(Side.LISTENER, OTHER.public_key)
    link.receive(HELLO, ME.curve_public_key)
    assert refusal_of(link, replace(HELLO, public_key=twin)).code is ErrorCode.UNAUTHENTICATED
    link.receive(replace(HELLO, agent="again"), ME.curve_public_key)
    assert link.peer is not None
    assert link.peer.agent == "again"


KEY, OTHER_KEY = SwarmKey(bytes([7] * 32)), SwarmKey(bytes([8] * 32))


def shake_hands(dialler_key: SwarmKey | None, listener_key: SwarmKey | None) -> tuple[Handshake, Handshake]:
    """A whole handshake in memory: OTHER dials ME."""
    dialler = Handshake(Side.DIALLER, OTHER.public_key, dialler_key, expected_peer=ME.peer_id)
    listener = Handshake(Side.LISTENER, ME.public_key, listener_key)
    listener.receive(dialler.say_hello(replace(HELLO, public_key=OTHER.public_key)), OTHER.curve_public_key)
    dialler.receive(listener.answer(replace(HELLO, nonce=bytes([9] * 16))), ME.curve_public_key)
    return dialler, listener


@pytest.mark.parametrize("key", [None, KEY])
def test_members_of_one_swarm_come_in(key: SwarmKey | None) -> None:
    dialler, listener = shake_hands(key, key)
    assert (dialler.peer_id, listener.peer_id) == (ME.peer_id, OTHER.peer_id)


@pytest.mark.parametrize(("dialler", "listener"), [(None, KEY), (OTHER_KEY, KEY), (KEY, None)])
def test_who_is_no_member_is_refused_with_a_reason(dialler: SwarmKey | None, listener: SwarmKey | None) -> None:
    with pytest.raises(HandshakeError) as refusal:
        shake_hands(dialler, listener)
    assert refusal.value.code is ErrorCode.DENIED
    assert "swarm" in str(refusal.value)
    assert KEY.secret.hex() not in str(refusal.value)
    for key in (KEY, OTHER_KEY):
        assert key.name not in str(refusal.value), "the text travels: a stranger does not learn the swarm's name"


@pytest.mark.parametrize("side", list(Side))
def test_who_is_not_wanted_is_refused_although_all_else_is_right(side: Side) -> None:
    """As those who are banned, or not among those who alone are allowed."""
    hello = HELLO_OK if side is Side.DIALLER else HELLO
    reasons: dict[PeerId, str] = {}
    link = Handshake(side, OTHER.public_key, refusal=reasons.get)
    link.state = LinkState.HELLO_SENT if side is Side.DIALLER else LinkState.NEW
    reasons[ME.peer_id] = "not on the allow list"
    refused = refusal_of(link, hello)
    assert refused.code is ErrorCode.DENIED and reasons[ME.peer_id] in str(refused)
    reasons.clear()
    link.receive(hello, ME.curve_public_key)
    assert link.state is LinkState.OPEN


@pytest.mark.parametrize("key", [None, OTHER_KEY])
def test_a_dialler_takes_only_an_answer_with_the_swarms_key(key: SwarmKey | None) -> None:
    """Whoever listens without the key gets a proof that is of no use to it, and no link."""
    dialler = Handshake(Side.DIALLER, OTHER.public_key, KEY, expected_peer=ME.peer_id)
    hello = dialler.say_hello(replace(HELLO, public_key=OTHER.public_key))
    impostor = Handshake(Side.LISTENER, ME.public_key, None)
    impostor.receive(replace(hello, proof=None), OTHER.curve_public_key)
    answer = impostor.answer(HELLO) if key is None else key.prove_answer(hello, HELLO_OK)
    assert refusal_of(dialler, answer).code is ErrorCode.DENIED
    echo = replace(HELLO_OK, proof=hello.proof)
    assert refusal_of(dialler, echo).code is ErrorCode.DENIED


@pytest.mark.parametrize(
    "change",
    [
        {"versions": (1, 2)},
        {"nonce": bytes([1] * 16)},
        {"public_key": Identity.from_seed(bytes([2] * 32)).public_key},
    ],
)
def test_a_proof_is_bound_to_its_hello(change: dict[str, Any]) -> None:
    hello = KEY.prove(replace(HELLO, public_key=OTHER.public_key), ME.public_key)
    assert KEY.accepts(hello, ME.public_key)
    assert not KEY.accepts(replace(hello, **change), ME.public_key)
    assert not KEY.accepts(hello, OTHER.public_key), "nor does another listener take it"


def test_a_swarm_key_is_read_strictly_and_never_shown() -> None:
    assert SwarmKey.from_hex(" " + "0a" * 32 + "\n").secret == bytes([10] * 32)
    for text in ("", "0a" * 31, "0a" * 33, "zz" * 32, "０" * 64):
        with pytest.raises(SwarmKeyError) as error:
            SwarmKey.from_hex(text)
        assert not text or text not in str(error.value)
    assert KEY.secret.hex() not in repr(KEY)
    assert KEY.name != OTHER_KEY.name


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_key_that_is_no_point_is_a_remote_error(key: bytes) -> None:
    link = Handshake(Side.LISTENER, OTHER.public_key)
    with pytest.raises(RemoteProtocolError):
        link.receive(replace(HELLO, public_key=key), bytes(32))
    assert link.state is LinkState.NEW
