"""A node that nobody told whom to use: it chooses guards among its swarm, and chooses them again after a restart."""

from __future__ import annotations

import pytest

from node.swarm.credentials import Swarm as StoredSwarm
from node.swarm.credentials import store_swarm
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.swarm import RunResult, Swarm

pytestmark = pytest.mark.swarm

SHORT = ["--ignore-eos", "--max-tokens", "6", "--temperature", "0", "--privacy", "split", "--lanes", "1"]


def roles(result: RunResult) -> list[tuple[str, str]]:
    assert result.returncode == 0, result.narration
    return [(peer["role"], peer["peer_id"]) for peer in result.receipt["peers"]]


def test_guards_stay_over_restarts_and_leave_their_place_empty() -> None:
    """In a swarm of four and told of nobody: one lane of two, the same at every start, never somebody else."""
    with Swarm() as swarm:
        swarm.start(4)
        client = swarm.folder / "client"
        client.mkdir()
        addresses = tuple(parse_multiaddr(node.address) for node in swarm.nodes)
        store_swarm(client, StoredSwarm(SwarmKey.from_hex(swarm.key), addresses))
        first = swarm.run("Once upon a time", SHORT, alone=True)
        chosen = roles(first)
        assert [role for role, _peer in chosen] == ["pad", "share"] and first.receipt["chunks"]["verified"] > 0
        assert "on one host" in first.receipt["note"], "a rule that gave way is said"
        assert (client / "guards.json").stat().st_mode & 0o777 == 0o600
        for _ in range(2):
            assert roles(swarm.run("Once upon a time", SHORT, alone=True)) == chosen
        guard = next(node for node in swarm.nodes if node.peer_id == chosen[0][1])
        guard.stop()
        without = swarm.run("Once upon a time", SHORT, alone=True)
        assert roles(without) == [] and without.receipt["mode"] == "local"
        assert without.token_ids == first.token_ids
