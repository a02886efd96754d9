"""Announcements on the local network, dial-back and the addresses that it confirms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.finding.announcement import announce, read_announcement
from protocol.finding.dialback import (
    SERVE_AT_ONCE,
    SERVE_BURST,
    SERVE_PERIOD_S,
    DialBack,
    DialBackResult,
    DialBackServer,
    DialBackStatus,
    dialable,
    host_of,
)
from protocol.finding.reachability import ASK_AGAIN_S, ASK_BUSY_S, ASK_TIMEOUT_S, CONFIRM_AGAIN_S, Reachability
from protocol.identity import Identity
from protocol.limits import MAX_ADDRESSES
from protocol.multiaddr import parse_multiaddr

ME, ALICE, BOB = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
KEY, NONCE = bytes(range(32)), bytes(24)
HOME = parse_multiaddr("/ip4/192.168.7.20/tcp/4711")
OTHER = parse_multiaddr("/ip4/10.1.1.1/tcp/4711")
NONCES = [bytes([number]) * 16 for number in range(8)]


# --- the local network


def test_members_read_an_announcement_and_others_see_nothing() -> None:
    entries = announce(ME.public_key, KEY, NONCE)
    assert read_announcement(entries, KEY) == ME.peer_id
    assert read_announcement(entries, bytes(32)) is None
    assert read_announcement(entries, None) is None
    plain = b"".join(entries.values())
    assert ME.peer_id.encode() not in plain and ME.public_key not in plain


def test_two_announcements_of_one_node_have_nothing_in_common() -> None:
    first, second = (announce(ME.public_key, KEY, bytes([number]) * 24)[b"s"] for number in (1, 2))
    assert len(first) == len(second) < 200 and sum(a == b for a, b in zip(first, second, strict=True)) < 20


def test_an_open_swarm_announces_its_peer_id() -> None:
    entries = announce(ME.public_key, None, NONCE)
    assert entries[b"id"].decode() == ME.peer_id
    assert read_announcement(entries, None) == ME.peer_id
    assert read_announcement(entries, KEY) is None


@given(st.dictionaries(st.sampled_from([b"v", b"s", b"id"]), st.none() | st.binary(max_size=140) | st.just(b"1")))
def test_any_other_entries_are_nobody(entries: dict[bytes, bytes | None]) -> None:
    assert read_announcement(entries, KEY) is None and read_announcement(entries, None) is None


# --- what a peer does for another


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("/ip4/192.168.7.20/tcp/4711", "192.168.7.20"),
        ("/ip4/192.168.7.20/tcp/4711", "::ffff:192.168.7.20"),
        ("/ip6/fd00::1/tcp/1", "[fd00:0::1]"),
        (f"/ip4/192.168.7.20/tcp/4711/p2p/{ALICE.peer_id}", "192.168.7.20"),
    ],
)
def test_the_askers_own_host_is_dialled_back(address: str, seen: str) -> None:
    assert str(dialable(DialBack(address, NONCES[0]), ALICE.peer_id, seen)).endswith(f"/p2p/{ALICE.peer_id}")


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/192.168.7.21/tcp/4711",
        "/dns4/192-168-7-20.example/tcp/4711",
        "/ip4/192.168.7.20/tcp/0",
        "/ip6/fd00::1/tcp/4711",
        f"/ip4/192.168.7.20/tcp/4711/p2p/{BOB.peer_id}",
        "nonsense",
    ],
)
def test_nobody_elses_door_is_knocked_at(address: str) -> None:
    with pytest.raises(RemoteProtocolError):
        dialable(DialBack(address, NONCES[0]), ALICE.peer_id, "192.168.7.20")


def test_a_host_that_is_no_address_matches_nothing() -> None:
    assert host_of("localhost") is None
    with pytest.raises(RemoteProtocolError):
        dialable(DialBack("/dns4/localhost/tcp/7", NONCES[0]), ALICE.peer_id, "localhost")


def test_bodies_come_back_and_other_bodies_are_refused() -> None:
    request = DialBack(str(HOME), NONCES[0])
    assert DialBack.from_body(request.to_body()) == request
    for status in DialBackStatus:
        result = DialBackResult(NONCES[1], status)
        assert DialBackResult.from_body(result.to_body()) == result
    for body in ({}, {0: NONCES[0], 1: 0}, {0: NONCES[0], 1: 3}, {0: b"short", 1: 1}, {0: NONCES[0], 1: True}):
        with pytest.raises(RemoteProtocolError):
            DialBackResult.from_body(body)


def test_a_peer_is_served_a_few_times_one_at_a_time() -> None:
    server = DialBackServer()
    assert server.admit(0.0, ALICE.peer_id) and not server.admit(0.1, ALICE.peer_id)
    for number in range(SERVE_BURST - 1):
        server.done(ALICE.peer_id)
        assert server.admit(1.0 + number, ALICE.peer_id)
    server.done(ALICE.peer_id)
    assert not server.admit(9.0, ALICE.peer_id), "its burst is used up"
    assert server.admit(SERVE_PERIOD_S + 0.5, ALICE.peer_id)


def test_all_peers_together_are_bounded() -> None:
    server = DialBackServer()
    peers = [Identity.from_seed(bytes([number + 9]) * 32).peer_id for number in range(SERVE_AT_ONCE + 1)]
    assert [server.admit(0.0, peer) for peer in peers] == [True] * SERVE_AT_ONCE + [False]


# --- what a node makes of it


def listening() -> Reachability:
    mine = Reachability()
    mine.listening([HOME, OTHER])
    return mine


def test_an_address_is_confirmed_when_the_nonce_comes_in() -> None:
    mine = listening()
    assert not mine.seen_at(0.0, ALICE.peer_id, HOME.host, 4711, came_in=False)
    [ask] = mine.due(0.0, NONCES)
    assert (ask.peer, ask.request.address) == (ALICE.peer_id, str(HOME))
    assert mine.confirmed() == () and not mine.due(0.1, NONCES)
    assert not mine.arrived(0.2, BOB.peer_id, ask.request.nonce), "a nonce counts from whoever was asked"
    assert not mine.arrived(0.2, ALICE.peer_id, NONCES[0])
    assert mine.arrived(0.2, ALICE.peer_id, ask.request.nonce)
    assert mine.confirmed() == (HOME,) and mine.unconfirmed() == (OTHER,)
    assert not mine.due(1.0, NONCES), "a confirmed address rests"
    assert len(mine.due(0.3 + CONFIRM_AGAIN_S, NONCES)) == 1


def test_a_link_that_came_in_is_proof_enough_for_a_host_of_this_device() -> None:
    mine = listening()
    assert mine.seen_at(0.0, ALICE.peer_id, HOME.host, 4711, came_in=True)
    assert mine.confirmed() == (HOME,)
    assert not mine.seen_at(0.0, BOB.peer_id, "203.0.113.9", 4711, came_in=True)
    assert mine.confirmed() == (HOME,), "a host that only peers speak of needs a nonce"


def test_an_observed_host_is_tried_and_announced_only_when_it_works() -> None:
    mine = listening()
    mine.seen_at(0.0, ALICE.peer_id, "203.0.113.9", 4711, came_in=False)
    [ask] = mine.due(0.0, NONCES)
    assert ask.request.address == "/ip4/203.0.113.9/tcp/4711"
    assert mine.arrived(0.1, ALICE.peer_id, ask.request.nonce)
    assert [str(address) for address in mine.confirmed()] == ["/ip4/203.0.113.9/tcp/4711"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "224.0.0.251", "::", "a.example", ""])
def test_hosts_that_lead_nowhere_are_no_candidates(host: str) -> None:
    mine = listening()
    assert not mine.seen_at(0.0, ALICE.peer_id, host, 4711, came_in=False)
    assert not mine.due(0.0, NONCES)


def test_a_peer_that_fails_is_asked_later_and_another_at_once() -> None:
    mine = listening()
    mine.seen_at(0.0, ALICE.peer_id, HOME.host, 4711, came_in=False)
    [ask] = mine.due(0.0, NONCES)
    assert not mine.failed(1.0, ALICE.peer_id, ask.request.nonce)
    assert not mine.due(2.0, NONCES)
    mine.seen_at(2.0, BOB.peer_id, HOME.host, 4711, came_in=False)
    [second] = mine.due(2.0, NONCES)
    assert second.peer == BOB.peer_id
    mine.refused(2.1, BOB.peer_id, is_busy=True)
    assert not mine.due(2.2, NONCES)
    [third] = mine.due(2.2 + ASK_BUSY_S, NONCES)
    assert third.peer == BOB.peer_id
    mine.refused(4.3, BOB.peer_id, is_busy=False)
    assert not mine.due(4.4, NONCES)
    assert mine.due(1.1 + ASK_AGAIN_S, NONCES)[0].peer == ALICE.peer_id


def test_a_confirmed_address_falls_when_it_fails_twice() -> None:
    mine = listening()
    mine.seen_at(0.0, ALICE.peer_id, HOME.host, 4711, came_in=True)
    mine.seen_at(0.0, BOB.peer_id, HOME.host, 4711, came_in=False)
    now = CONFIRM_AGAIN_S + 1
    assert len(mine.due(now, NONCES)) == 1
    assert not mine.expire(now + ASK_TIMEOUT_S - 1) and not mine.expire(now + ASK_TIMEOUT_S)
    assert mine.confirmed() == (HOME,), "one peer may be at fault itself"
    [ask] = mine.due(now + ASK_TIMEOUT_S, NONCES)
    assert mine.failed(now + ASK_TIMEOUT_S + 1, ask.peer, ask.request.nonce)
    assert mine.confirmed() == ()


def test_what_an_interface_no_longer_has_is_forgotten() -> None:
    mine = listening()
    mine.seen_at(0.0, ALICE.peer_id, HOME.host, 4711, came_in=True)
    mine.listening([OTHER])
    assert mine.confirmed() == () and mine.unconfirmed() == (OTHER,)


def test_liars_cannot_fill_the_table() -> None:
    mine = Reachability()
    for number in range(40):
        peer = Identity.from_seed(bytes([number + 9]) * 32).peer_id
        mine.seen_at(0.0, peer, f"203.0.113.{number}", 4711, came_in=False)
    assert len(mine.due(0.0, [bytes([number]) * 16 for number in range(99)])) == MAX_ADDRESSES
    for number in range(40):
        mine.gone(Identity.from_seed(bytes([number + 9]) * 32).peer_id)
    mine.expire(ASK_TIMEOUT_S)
    assert not mine.due(ASK_TIMEOUT_S, NONCES), "what only they spoke of went with them"
