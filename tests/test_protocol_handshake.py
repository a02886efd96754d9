"""Every state and every event of a link, and every way in which a hello can be a lie."""

import itertools
from dataclasses import replace

import pytest

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.handshake import TRANSITIONS, Handshake, HandshakeError, LinkEvent, LinkState, Side, event_of
from protocol.identity import Identity, curve_public_key_of
from protocol.messages import (
    Attach,
    Cancel,
    ErrorCode,
    ErrorReply,
    GoAway,
    Hello,
    HelloOk,
    LinearResult,
    Message,
    Ping,
    Pong,
)

ME, OTHER = Identity.from_seed(bytes(32)), Identity.from_seed(bytes([1] * 32))
HELLO = Hello(ME.public_key, (1,), "test", (), 0, (), 0, (1,), bytes(16))
HELLO_OK = HelloOk(**{name: getattr(HELLO, name) for name in Hello.__dataclass_fields__})

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
        link = Handshake(side, state=state)
        link.lost()
        assert link.state is (following or state)
        return
    if event is LinkEvent.SEND_HELLO:
        link = Handshake(side, state=state)
        if following is None:
            with pytest.raises(LocalProtocolError):
                link.sending_hello()
        else:
            link.sending_hello()
        assert link.state is (following or state)
        return
    for message in MESSAGES[event]:
        link = Handshake(side, state=state)
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
    link = Handshake(Side.LISTENER)
    assert link.peer_id is None
    link.receive(HELLO, ME.curve_public_key)
    assert link.peer_id == ME.peer_id


@pytest.mark.parametrize("versions", [(), (0,), (2,), (2, 3), (65535,)])
def test_another_version_is_refused_in_words(versions: tuple[int, ...]) -> None:
    refusal = refusal_of(Handshake(Side.LISTENER), replace(HELLO, versions=versions))
    assert refusal.code is ErrorCode.PRECONDITION
    assert "kek/1" in str(refusal)
    assert len(str(refusal)) < 200


def test_one_common_version_is_enough() -> None:
    Handshake(Side.LISTENER).receive(replace(HELLO, versions=(7, 1)), ME.curve_public_key)


def test_a_key_that_is_not_the_connections_is_refused() -> None:
    refusal = refusal_of(Handshake(Side.LISTENER), HELLO, OTHER.curve_public_key)
    assert refusal.code is ErrorCode.UNAUTHENTICATED


def test_the_dialler_takes_only_whom_it_dialled() -> None:
    link = Handshake(Side.DIALLER, expected_peer=OTHER.peer_id, state=LinkState.HELLO_SENT)
    assert refusal_of(link, HELLO_OK).code is ErrorCode.UNAUTHENTICATED


def test_the_twin_of_a_key_is_another_identity() -> None:
    twin = ME.public_key[:31] + bytes([ME.public_key[31] ^ 0x80])
    assert curve_public_key_of(twin) == ME.curve_public_key
    dialler = Handshake(Side.DIALLER, expected_peer=ME.peer_id, state=LinkState.HELLO_SENT)
    assert refusal_of(dialler, replace(HELLO_OK, public_key=twin)).code is ErrorCode.UNAUTHENTICATED
    link = Handshake(Side.LISTENER)
    link.receive(HELLO, ME.curve_public_key)
    assert refusal_of(link, replace(HELLO, public_key=twin)).code is ErrorCode.UNAUTHENTICATED
    link.receive(replace(HELLO, agent="again"), ME.curve_public_key)
    assert link.peer is not None
    assert link.peer.agent == "again"


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_key_that_is_no_point_is_a_remote_error(key: bytes) -> None:
    link = Handshake(Side.LISTENER)
    with pytest.raises(RemoteProtocolError):
        link.receive(replace(HELLO, public_key=key), bytes(32))
    assert link.state is LinkState.NEW
