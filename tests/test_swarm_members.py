"""Real nodes that find each other: one address is enough, who is gone is noticed, who is no member stays out."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import until

from node.gateway.client.client import call_node
from node.swarm.memory import SwarmMemory
from protocol.link.admission import SwarmKey
from scripts.harness.swarm import NodeProcess, Swarm

pytestmark = pytest.mark.swarm

WAIT_S = 30.0
"""How long what must happen may take on a machine that is busy; it takes a second or two on one that is not."""


def peers_of(node: NodeProcess) -> dict[str, dict[str, Any]]:
    return {peer["peer_id"]: peer for peer in call_node(node.data_dir, "peers")["peers"]}


def states(node: NodeProcess) -> dict[str, str]:
    return {peer_id: peer["state"] for peer_id, peer in peers_of(node).items()}


def connected(node: NodeProcess) -> set[str]:
    return {peer_id for peer_id, peer in peers_of(node).items() if peer["connected"]}


def all_connected(nodes: list[NodeProcess]) -> bool:
    everybody = {node.peer_id for node in nodes}
    return all(connected(node) == everybody - {node.peer_id} for node in nodes)


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """Three nodes; the second and third know the first one's address alone."""
    with Swarm() as swarm:
        swarm.start(1)
        swarm.start(2, options=["--bootstrap", swarm.nodes[0].address])
        until(lambda: all_connected(swarm.nodes), "every two nodes get a link")
        yield swarm


def test_one_address_is_enough_and_who_goes_is_missed(swarm: Swarm) -> None:
    first, second, third = swarm.nodes
    shown = peers_of(second)[third.peer_id]
    assert shown["state"] == "alive" and shown["excluded"] is None
    assert (shown["addrs"], shown["version"]) == ([third.address], "0.1.0")
    assert shown["layers"] and shown["speed_gmacs"] > 0
    until(lambda: len(SwarmMemory(second.data_dir).anchors()) == 2, "it remembers whom it has met")
    second.kill()
    until(lambda: states(first)[second.peer_id] == "dead", "a crash is noticed")
    until(lambda: states(third)[second.peer_id] == "dead", "by everybody")
    assert third.stop() == 0
    until(lambda: states(first)[third.peer_id] == "left", "a goodbye is heard")

    swarm.restart(second, moved=True)
    until(lambda: states(first)[second.peer_id] == "alive", "it comes back, found by the records of its last run")
    until(lambda: peers_of(first)[second.peer_id]["addrs"] == [second.address], "its record brings the new address")


def test_who_has_no_key_is_refused_and_both_sides_say_why(swarm: Swarm) -> None:
    first = swarm.nodes[0]
    key, swarm.key = swarm.key, secrets.token_hex(32)
    swarm.start(1, options=["--bootstrap", first.address])
    stranger, swarm.key = swarm.nodes[-1], key
    until(lambda: "another swarm" in stranger.narration(), "the stranger says why")
    until(lambda: "was refused: it does not know the key" in first.narration(), "and so does the member")
    assert connected(stranger) == set()
    assert stranger.peer_id not in peers_of(first)
    assert SwarmKey.from_hex(key).name not in stranger.narration(), "a stranger does not learn the swarm's name"
    for node in (first, stranger):
        assert key not in node.narration(), "nobody's key is in a log"


def test_a_ban_takes_effect_at_once_and_outlives_a_restart(swarm: Swarm) -> None:
    first, second, third = swarm.nodes
    unknown = command("ban", "nobody1", "--data-dir", str(first.data_dir))
    assert unknown.returncode == 1 and "no known peer is called nobody1" in unknown.stderr
    result = command("ban", f"…{second.peer_id[-6:]}", "--reason", "test", "--data-dir", str(first.data_dir))
    assert result.returncode == 0 and second.peer_id in result.stderr, "the end that interfaces show is enough"
    until(lambda: second.peer_id not in connected(first), "its links end")
    assert peers_of(first)[second.peer_id]["excluded"] == "banned: test"
    until(lambda: connected(third) == {first.peer_id, second.peer_id}, "others still talk to both")

    assert first.stop() == 0
    listed = command("ban", "--list", "--json", "--data-dir", str(first.data_dir))
    assert [entry["peer_id"] for entry in json.loads(listed.stdout)["entries"]] == [second.peer_id]
    swarm.restart(first)
    until(lambda: third.peer_id in connected(first), "it is back")
    until(lambda: peers_of(first).get(second.peer_id, {}).get("state") == "alive", "and has heard of the other")
    assert second.peer_id not in connected(first)
    assert peers_of(first)[second.peer_id]["excluded"] == "banned: test"
    assert command("ban", second.peer_id, "--remove", "--data-dir", str(first.data_dir)).returncode == 0
    until(lambda: second.peer_id in connected(first), "and let in again")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "node", *arguments], capture_output=True, text=True, timeout=60)
