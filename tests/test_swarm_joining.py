"""`join` and `invite` on a data directory: what is kept, what is never lost unasked, what an invitation names."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from node.errors import ConfigError
from node.swarm.credentials import Swarm, load_swarm, read_stored, store_swarm
from node.swarm.inviting import key_is_shared, offline_swarm, write_invitation
from node.swarm.joining import join_swarm
from protocol.finding.invitation import Invitation, InvitedModel, parse_invitation
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr

PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(10)]
KEY = bytes(range(32))
STORY = InvitedModel(bytes(32), "story")
OUTSIDE = [Multiaddr("ip4", f"192.168.7.{number}", 4711, PEERS[number]) for number in range(10)]
LOOPBACK = Multiaddr("ip4", "127.0.0.1", 4711, PEERS[0])


def invitation(key: bytes | None = KEY, *addresses: Multiaddr) -> Invitation:
    return Invitation(addresses or (OUTSIDE[1],), 1 << 33, key, (STORY,))


def test_an_empty_directory_is_in_from_now_on(tmp_path: Path) -> None:
    joined = join_swarm(tmp_path, invitation(), may_replace=False)
    assert joined.left is None
    swarm = load_swarm(tmp_path, {})
    assert swarm.key == SwarmKey(KEY) and swarm.bootstrap == (OUTSIDE[1],) and not swarm.own_key
    assert [(model.name, model.model_id) for model in swarm.models] == [("story", bytes(32))]
    for name in ("swarm.key", "swarm.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_key_that_nobody_shares_is_replaced_unasked(tmp_path: Path) -> None:
    load_swarm(tmp_path, {})  # a first start makes a key
    joined = join_swarm(tmp_path, invitation(), may_replace=False)
    assert joined.left is None and load_swarm(tmp_path, {}).key == SwarmKey(KEY)


def test_a_key_that_somebody_was_invited_with_is_kept_until_told(tmp_path: Path) -> None:
    own = load_swarm(tmp_path, {})
    key_is_shared(tmp_path, own.key)
    with pytest.raises(ConfigError, match="--replace"):
        join_swarm(tmp_path, invitation(), may_replace=False)
    assert load_swarm(tmp_path, {}).key == own.key
    assert join_swarm(tmp_path, invitation(), may_replace=True).left == own.name
    assert load_swarm(tmp_path, {}).key == SwarmKey(KEY)


def test_a_swarm_whose_members_were_met_is_kept_until_told(tmp_path: Path) -> None:
    load_swarm(tmp_path, {})
    (tmp_path / "anchors").write_bytes(b"\x80")
    with pytest.raises(ConfigError, match="would lose its key"):
        join_swarm(tmp_path, invitation(), may_replace=False)
    join_swarm(tmp_path, invitation(), may_replace=True)
    assert not (tmp_path / "anchors").exists(), "records of the other swarm lead to nobody here"


def test_joining_again_refreshes_the_addresses(tmp_path: Path) -> None:
    join_swarm(tmp_path, invitation(KEY, OUTSIDE[1], OUTSIDE[2]), may_replace=False)
    joined = join_swarm(tmp_path, invitation(KEY, OUTSIDE[3], OUTSIDE[1]), may_replace=False)
    assert joined.left is None
    assert load_swarm(tmp_path, {}).bootstrap == (OUTSIDE[3], OUTSIDE[1], OUTSIDE[2])
    assert len(load_swarm(tmp_path, {}).models) == 1


def test_an_open_swarm_is_joined_without_a_key(tmp_path: Path) -> None:
    join_swarm(tmp_path, invitation(None), may_replace=False)
    assert load_swarm(tmp_path, {}).is_open and not (tmp_path / "swarm.key").exists()
    with pytest.raises(ConfigError, match="is in the swarm open"):
        join_swarm(tmp_path, invitation(), may_replace=False)


def test_an_invitation_leads_to_this_node_first_and_then_to_others() -> None:
    written = write_invitation(SwarmKey(KEY), [LOOPBACK, *OUTSIDE[:1]], OUTSIDE[1:], [STORY], 2_000_000_000)
    read = parse_invitation(written.line, 0)
    assert read == written.invitation and read.addresses == tuple(OUTSIDE[:8]) and read.swarm_key == KEY
    assert written.note is None


def test_what_an_invitation_has_no_room_for_is_said() -> None:
    own = [Multiaddr("ip4", f"10.0.{number}.1", 4711, PEERS[0]) for number in range(10)]
    alone = write_invitation(None, [LOOPBACK, *own], [], [], 2_000_000_000)
    assert alone.invitation.addresses == tuple(own[:8])
    assert "10.0.8.1, 10.0.9.1" in str(alone.note) and "10.0.7.1" not in str(alone.note)
    among_others = write_invitation(None, own, OUTSIDE, [], 2_000_000_000)
    assert among_others.invitation.addresses == (*own[:5], *OUTSIDE[:3]), "in case this node is off"
    assert "10.0.5.1" in str(among_others.note)
    models = [InvitedModel(bytes([number]) * 32, f"m{number}") for number in range(9)]
    written = write_invitation(None, own[:1], [], models, 2_000_000_000)
    assert written.invitation.models == tuple(models[:8]) and "8 of 9 models" in str(written.note)


def test_an_invitation_of_a_node_on_loopback_says_so() -> None:
    written = write_invitation(None, [LOOPBACK], [], [], 2_000_000_000)
    assert written.invitation.addresses == (LOOPBACK,) and written.invitation.swarm_key is None
    assert "only on this device" in str(written.note)


def test_an_invitation_without_an_address_is_none() -> None:
    with pytest.raises(ConfigError, match="needs an address"):
        write_invitation(SwarmKey(KEY), [], [], [], 2_000_000_000)


def test_a_node_that_only_dials_invites_to_the_others() -> None:
    written = write_invitation(SwarmKey(KEY), [], OUTSIDE[1:2], [], 2_000_000_000)
    assert "other members" in str(written.note)


def test_inviting_marks_the_key_as_shared_and_leaves_others_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not in a swarm yet"):
        offline_swarm(tmp_path)
    own = load_swarm(tmp_path, {})
    key_is_shared(tmp_path, SwarmKey(KEY))
    stored = read_stored(tmp_path)
    assert stored is not None and stored.own_key, "another key was shared"
    key_is_shared(tmp_path, own.key)
    assert offline_swarm(tmp_path) == Swarm(own.key)
    store_swarm(tmp_path, own)
