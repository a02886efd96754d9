"""What a data directory keeps of its swarm: whole or not there, errors that name the file."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from made_parts import identity
from msgspec.structs import replace

from node.errors import ConfigError, KekahydeError
from node.swarm.access import AccessList, Verdict
from node.swarm.credentials import (
    ENVIRONMENT_KEY,
    KnownModel,
    Swarm,
    known_addresses,
    load_swarm,
    read_stored,
    store_swarm,
)
from node.swarm.memory import MAX_ANCHORS, SwarmMemory
from protocol.link.admission import SwarmKey
from protocol.membership.records import PeerFacts, sign_record
from protocol.multiaddr import parse_multiaddr

KEY = SwarmKey(bytes(range(32)))
ADDRESS = parse_multiaddr(f"/ip4/127.0.0.1/tcp/4711/p2p/{identity(1).peer_id}")
PEER = identity(1).peer_id


# --- the swarm


def test_a_first_start_makes_a_key_and_keeps_it(tmp_path: Path) -> None:
    first = load_swarm(tmp_path, {})
    assert first.key is not None and first.own_key
    assert load_swarm(tmp_path, {}) == first
    assert stat.S_IMODE((tmp_path / "swarm.key").stat().st_mode) == 0o600
    other = tmp_path / "other"
    other.mkdir()
    assert load_swarm(other, {}).key != first.key


def test_an_explicit_key_comes_before_the_environment_before_the_directory(tmp_path: Path) -> None:
    store_swarm(tmp_path, Swarm(KEY, (ADDRESS,)))
    file = tmp_path / "given"
    file.write_text("11" * 32 + "\n")
    environment = {ENVIRONMENT_KEY: "22" * 32}
    assert load_swarm(tmp_path, {}).key == KEY
    assert load_swarm(tmp_path, environment).key == SwarmKey(bytes([0x22] * 32))
    assert load_swarm(tmp_path, environment, file).key == SwarmKey(bytes([0x11] * 32))
    assert load_swarm(tmp_path, environment, is_open=True).is_open
    assert load_swarm(tmp_path, environment).bootstrap == (ADDRESS,)
    assert read_stored(tmp_path) == Swarm(KEY, (ADDRESS,)), "and none of this was written"


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    swarm = Swarm(KEY, (ADDRESS,), (KnownModel("story", bytes(32)),), own_key=True)
    store_swarm(tmp_path, swarm)
    assert read_stored(tmp_path) == swarm
    store_swarm(tmp_path, replace(swarm, key=None))
    assert read_stored(tmp_path) == replace(swarm, key=None)
    assert not (tmp_path / "swarm.key").exists()


@pytest.mark.parametrize("content", ["", "00" * 31, "zz" * 32, "00" * 33, "\x00" * 64])
def test_a_key_that_is_none_is_an_error_that_does_not_show_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "swarm.key").write_text(content)
    for load in (lambda: load_swarm(tmp_path, {}), lambda: load_swarm(tmp_path, {}, tmp_path / "swarm.key")):
        with pytest.raises(ConfigError, match=r"swarm\.key") as error:
            load()
        assert not content or content not in str(error.value)
    with pytest.raises(ConfigError, match=ENVIRONMENT_KEY):
        load_swarm(tmp_path, {ENVIRONMENT_KEY: content})


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"bootstrap": 5}', '{"bootstrap": ["/ip4/x"]}', '{"models": [["a", "00"]]}', '{"models": [1]}'],
)
def test_settings_that_are_none_are_an_error(tmp_path: Path, content: str) -> None:
    store_swarm(tmp_path, Swarm(KEY))
    (tmp_path / "swarm.json").write_text(content)
    with pytest.raises(ConfigError, match=r"swarm\.json"):
        load_swarm(tmp_path, {})


def test_a_private_and_an_open_swarm_at_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--open"):
        load_swarm(tmp_path, {}, tmp_path / "key", is_open=True)


# --- sequence number and anchors


def test_the_sequence_number_survives(tmp_path: Path) -> None:
    memory = SwarmMemory(tmp_path)
    assert memory.seq() == 0
    memory.keep_seq(1_800_000_000_000)
    assert SwarmMemory(tmp_path).seq() == 1_800_000_000_000
    for content in ("x", "-1", str(1 << 63), "\xff"):
        (tmp_path / "seq").write_text(content)
        with pytest.raises(ConfigError, match="seq"):
            memory.seq()


def test_anchors_survive_and_damage_costs_only_what_is_damaged(tmp_path: Path) -> None:
    facts = PeerFacts((str(ADDRESS),))
    records = [sign_record(identity(index), replace(facts, addrs=()), 5) for index in (2, 3)]
    records.insert(0, sign_record(identity(1), facts, 5))
    memory = SwarmMemory(tmp_path)
    assert memory.anchors() == []
    memory.keep_anchors([record.envelope for record in records] + [b"damaged"])
    assert memory.anchors() == records
    assert known_addresses(Swarm(KEY), tmp_path) == (ADDRESS,)
    (tmp_path / "anchors").write_bytes(b"nothing")
    assert memory.anchors() == []
    memory.keep_anchors([record.envelope for record in records] * MAX_ANCHORS)
    assert len(memory.anchors()) == MAX_ANCHORS


# --- who is let in


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_ban_persists_and_expires(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "access.json"
    access = AccessList(path, clock)
    assert access.refusal(PEER) is None
    access.put(PEER, Verdict.BAN, 60.0, "it lied")
    for lists in (access, AccessList(path, clock)):
        assert lists.refusal(PEER) == "banned: it lied"
        assert lists.is_banned(identity(1).curve_public_key)
        assert not lists.is_banned(identity(2).curve_public_key)
    clock.now += 61.0
    assert access.refusal(PEER) is None
    assert access.entries() == []
    assert not access.is_banned(identity(1).curve_public_key)
    access.put(identity(2).peer_id, Verdict.BAN)
    assert [entry["peer_id"] for entry in json.loads(path.read_text())["entries"]] == [identity(2).peer_id]


def test_with_only_allowed_nobody_else_comes_in(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "access.json"
    access = AccessList(path, clock)
    access.put(PEER, Verdict.ALLOW, 60.0)
    access.set_only_allowed(True)
    assert AccessList(path, clock).refusal(PEER) is None
    assert access.refusal(identity(2).peer_id) == "not on the allow list"
    clock.now += 61.0
    assert access.refusal(PEER) == "not on the allow list", "an entry that ran out allows nothing"
    access.put(PEER, Verdict.BAN)
    assert access.refusal(PEER) == "banned"
    assert access.remove(PEER) and not access.remove(PEER)


def test_what_is_no_peer_is_not_entered(tmp_path: Path) -> None:
    with pytest.raises(KekahydeError, match="nobody"):
        AccessList(tmp_path / "access.json", Clock()).put("nobody", Verdict.BAN)
    assert not (tmp_path / "access.json").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"only_allowed": false, "entries": [{}]}', "[1]"])
def test_lists_that_cannot_be_read_are_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "access.json").write_text(content)
    with pytest.raises(ConfigError, match=r"access\.json"):
        AccessList(tmp_path / "access.json", Clock())


def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = AccessList(tmp_path / "access.json", Clock())
    access.put(PEER, Verdict.BAN)
    before = (tmp_path / "access.json").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("node.store.files.os.fsync", full)
    attempts: list[Callable[[], object]] = [
        lambda: access.put(identity(2).peer_id, Verdict.BAN),
        lambda: SwarmMemory(tmp_path).keep_seq(5),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigError, match="No space"):
            attempt()
    assert (tmp_path / "access.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["access.json"]
