"""Messages of membership survive the wire; what is none is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import cbor
from protocol.errors import RemoteProtocolError
from protocol.membership.messages import (
    Claim,
    Digest,
    DigestEntry,
    Gossip,
    PingReq,
    PingResult,
    State,
    Sync,
    SyncOk,
)
from scripts.membership_lab.simulator import identity_of

KEYS = [identity_of(number).public_key for number in range(4)]
MESSAGES = [
    Gossip((b"r" * 10,), (Claim(KEYS[0], 3, State.DEAD, KEYS[1]),)),
    Sync(bytes(32), b"r"),
    SyncOk(),
    SyncOk(Digest(KEYS[0], None, (DigestEntry(KEYS[1], 4, bytes(8)),)), (b"r",), (), (KEYS[2],)),
    SyncOk(Digest(bytes(32), KEYS[3], ())),
    PingReq(KEYS[0], 1),
    PingResult(KEYS[0], 1, True),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_survive_the_wire(message: Any) -> None:
    assert type(message).from_body(cbor.decode(cbor.encode(message.to_body()), 65536)) == message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Gossip, {}),
        (Gossip, {0: [bytes(1201)], 1: []}),
        (Gossip, {0: [b""] * 257, 1: []}),
        (Gossip, {0: [], 1: [[KEYS[0], 1, 1, KEYS[1]]]}),
        (Gossip, {0: [], 1: [[KEYS[0], 1, 4, KEYS[1]]]}),
        (Gossip, {0: [], 1: [7]}),
        (Sync, {0: bytes(32)}),
        (SyncOk, {0: [KEYS[0], None], 1: [], 2: [], 3: []}),
        (SyncOk, {0: [KEYS[0], 7, []], 1: [], 2: [], 3: []}),
        (SyncOk, {1: [], 2: [], 3: [b"short"]}),
        (SyncOk, {0: None, 1: [], 2: [], 3: []}),
        (PingReq, {0: KEYS[0], 1: -1}),
        (PingResult, {0: KEYS[0], 1: 1, 2: 2}),
    ],
)
def test_messages_that_are_none(kind: Any, body: dict[int, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        kind.from_body(body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 4), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from([Gossip, Sync, SyncOk, PingReq, PingResult]), st.dictionaries(st.integers(0, 4), ANYTHING))
def test_no_body_breaks_a_reader(kind: Any, body: dict[int, Any]) -> None:
    try:
        kind.from_body(body)
    except RemoteProtocolError:
        return
