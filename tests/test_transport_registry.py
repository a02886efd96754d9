"""The table of connected peers: goodbyes that are still answered, and a version that tells of every change."""

from __future__ import annotations

import pytest
from made_parts import identity

from node.transport import registry as registry_module
from node.transport.registry import ConnectedPeer, DialOutcome, DialState, PeerRegistry, peer_of_hello
from protocol.identity import curve_public_key_of
from protocol.link.hello import Hello


def peer_of(index: int, data_port: int = 1) -> ConnectedPeer:
    hello = Hello(
        public_key=identity(index).public_key, versions=(1,), agent="test/1", addrs=(), data_port=data_port,
        hosted=(), macs_per_s=5, work=(), nonce=bytes(16),
    )  # fmt: skip
    return peer_of_hello(hello, "127.0.0.1", dialled=True)


def test_whoever_says_goodbye_gets_nothing_new_and_is_still_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    table, peer = PeerRegistry(), peer_of(1, data_port=0)
    key = curve_public_key_of(peer.hello.public_key)
    table.up(peer)
    assert table.attach(key, b"route") and table.usable() == [peer]
    table.leave(peer.peer_id)
    table.down(peer.peer_id)
    assert table.is_leaving(peer.peer_id) and table.usable() == [] and table.peers() == []
    assert table.by_curve_key(key) == peer and table.route_of(peer.peer_id) == b"route"
    later = registry_module.time.monotonic() + registry_module.FAREWELL_S + 1
    monkeypatch.setattr(registry_module.time, "monotonic", lambda: later)
    assert table.by_curve_key(key) is None and table.route_of(peer.peer_id) is None


def test_a_connection_that_ended_gives_way_to_the_one_before_it() -> None:
    table, peer = PeerRegistry(), peer_of(1, data_port=0)
    key = curve_public_key_of(peer.hello.public_key)
    table.up(peer)
    for number in range(6):
        assert table.attach(key, b"%d" % number)
    assert table.route_of(peer.peer_id) == b"5" and table.detach(peer.peer_id, b"5")
    assert table.route_of(peer.peer_id) == b"4" and not table.detach(peer.peer_id, b"5")
    assert not table.detach(peer.peer_id, b"1"), "so many are not kept"
    assert all(table.detach(peer.peer_id, route) for route in (b"2", b"3", b"4"))
    assert table.route_of(peer.peer_id) is None and table.usable() == [], "it serves over none any more"


def test_whoever_comes_back_is_not_leaving() -> None:
    table, peer = PeerRegistry(), peer_of(1)
    table.up(peer)
    table.leave(peer.peer_id)
    table.down(peer.peer_id)
    table.up(peer)
    assert not table.is_leaving(peer.peer_id) and table.usable() == [peer]
    table.leave(peer_of(2).peer_id)
    assert not table.is_leaving(peer_of(2).peer_id), "nobody who was never here"


def test_every_change_shows_in_the_version() -> None:
    table, peer = PeerRegistry(), peer_of(1)
    versions = [table.version]
    for change in (
        lambda: table.up(peer),
        lambda: table.attach(curve_public_key_of(peer.hello.public_key), b"r"),
        lambda: table.leave(peer.peer_id),
        lambda: table.down(peer.peer_id),
    ):
        change()
        versions.append(table.version)
    assert versions == sorted(set(versions))
    table.measured(peer.peer_id, 0.1, 2)
    assert table.version == versions[-1]


def test_a_record_replaces_what_was_announced_before() -> None:
    """Else a peer whose records name other models each time would fill this node's memory."""
    table, peer = PeerRegistry(), peer_of(1)
    table.up(peer)
    for number in range(100):
        table.announce(peer.peer_id, {bytes([number]) * 32: frozenset({bytes(32)})})
    assert list(table.peers()[0].announced) == [bytes([99]) * 32]
    version = table.version
    table.announce(peer.peer_id, {bytes([99]) * 32: frozenset({bytes(32)})})
    assert table.version == version, "nothing new"
    table.announce(peer.peer_id, {})
    assert not table.peers()[0].serves(bytes([99]) * 32)


def test_whoever_is_expelled_is_not_heard_even_after_a_goodbye() -> None:
    table, peer = PeerRegistry(), peer_of(1)
    table.up(peer)
    table.leave(peer.peer_id)
    table.down(peer.peer_id)
    assert table.is_heard(peer.peer_id)
    table.expel(peer.peer_id)
    assert not table.is_heard(peer.peer_id)
    assert table.by_curve_key(curve_public_key_of(peer.hello.public_key)) is None


def test_what_became_of_addresses_is_kept_for_so_many() -> None:
    table = PeerRegistry()
    for number in range(registry_module.MAX_OUTCOMES + 10):
        table.outcome(DialOutcome(f"/ip4/127.0.0.1/tcp/{number}", DialState.UP))
    assert len(table.outcomes()) == registry_module.MAX_OUTCOMES
    assert table.outcomes()[-1].address.endswith(str(registry_module.MAX_OUTCOMES + 9))
