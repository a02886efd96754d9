"""Names of devices: which one a user means, and that a name which a peer claims deceives nobody."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from made_parts import identity
from waiting import until

from node.cli.serve import own_name
from node.errors import ConfigError, OperationError
from node.gateway.client.client import call_node
from node.swarm.credentials import load_swarm
from node.swarm.device_names import DeviceNames, check_name, host_name
from scripts.harness.swarm import NodeProcess, Swarm

ANNA, BEN = identity(1).peer_id, identity(2).peer_id


def test_names_are_kept_and_belong_to_one_device(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    names = DeviceNames(path)
    names.give(ANNA, " Anna's laptop ")
    with pytest.raises(ConfigError, match="is called"):
        names.give(BEN, "anna's LAPTOP")
    names.give(ANNA, "Anna's laptop")  # the same again
    names.give(BEN, "ben")
    names.give(BEN, "")
    assert DeviceNames(path).all() == {ANNA: "Anna's laptop"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", " ", "a" * 33, "a\nb", "a\u202eb"])
def test_a_name_is_a_few_printable_characters(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a device's name"):
        check_name(name)


@pytest.mark.parametrize("text", ["", "[]", '{"x": "y"}', f'{{"{ANNA}": ""}}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        DeviceNames(tmp_path / "names.json")


def name_of(node: NodeProcess, other: NodeProcess) -> str:
    peers = call_node(node.data_dir, "peers")["peers"]
    return next((peer["name"] for peer in peers if peer["peer_id"] == other.peer_id), "")


@pytest.mark.swarm
def test_a_claimed_name_deceives_nobody() -> None:
    with Swarm() as swarm:
        swarm.start(1)
        home = swarm.nodes[0]
        joining = ["--bootstrap", home.address, "--name"]
        swarm.start(1, options=[*joining, "anna"])
        anna = swarm.nodes[1]
        until(lambda: name_of(home, anna) == "anna", "a device tells its name")
        swarm.start(1, options=[*joining, "Anna"])
        other = swarm.nodes[2]
        until(lambda: name_of(home, other) == f"Anna …{other.peer_id[-6:]}", "two that say the same are told apart")
        with pytest.raises(OperationError, match="can mean several"):
            call_node(home.data_dir, "allow", peer_id="anna")
        swarm.start(1, options=[*joining, anna.peer_id[-6:]])
        until(lambda: name_of(home, swarm.nodes[3]) == anna.peer_id[-6:], "one calls itself as Anna's PeerID ends")
        with pytest.raises(OperationError, match="can mean several"):
            call_node(home.data_dir, "allow", peer_id=anna.peer_id[-6:])

        assert call_node(home.data_dir, "name", peer=anna.peer_id, name="Anna")["peer_id"] == anna.peer_id
        allowed = call_node(home.data_dir, "allow", peer_id="anna")
        assert allowed["entry"]["peer_id"] == anna.peer_id, "a name given here counts before claims"
        assert name_of(home, anna) == "Anna" and name_of(home, other).endswith(other.peer_id[-6:])


def test_a_name_of_this_start_counts_before_the_stored_one_and_an_open_swarm_is_told_no_host(tmp_path: Path) -> None:
    keyed, opened = (
        load_swarm(tmp_path, {"KEKAHYDE_SWARM_KEY": "0" * 64}, None, False),
        load_swarm(tmp_path, {}, None, True),
    )
    assert own_name("desk", "shelf", keyed) == own_name("desk", "", opened) == "desk"
    assert own_name("", "shelf", keyed) == "", "told none for once"
    assert own_name(None, "shelf", keyed) == own_name(None, "shelf", opened) == "shelf"
    assert own_name(None, "", keyed) == host_name() and own_name(None, "", opened) == ""
