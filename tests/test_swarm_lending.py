"""What a device does for others is counted, shown, and ends when its owner says so; the answer does not change."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from waiting import until

from node.gateway.client.client import call_node
from scripts.harness.swarm import NodeProcess, Swarm

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time there was a fox"
STRICT = ["--privacy", "strict", "--max-tokens", "12", "--temperature", "0", "--ignore-eos"]


def lend(node: NodeProcess, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "node", "lend", "--json", "--data-dir", str(node.data_dir), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def excluded(node: NodeProcess, other: NodeProcess) -> str | None:
    peers = call_node(node.data_dir, "peers")["peers"]
    return next((peer["excluded"] for peer in peers if peer["peer_id"] == other.peer_id), "unknown")


def test_it_is_counted_and_paused_and_the_answer_is_the_same() -> None:
    with Swarm() as swarm:
        swarm.start(2)
        lender = swarm.nodes[0]
        answer = swarm.run(PROMPT, STRICT, peers=[0])
        assert answer.returncode == 0 and answer.receipt["mode"] == "strict", answer.narration
        facts = lend(lender)
        (borrower,) = facts["borrowers"]
        verified = answer.receipt["chunks"]["verified"]
        assert borrower["requests"] >= verified > 0 and borrower["rows"] >= borrower["requests"]
        assert borrower["model"] == "story" and facts["month_bytes"] >= borrower["num_bytes"] > 1000 * verified
        assert facts["refusal"] is None

        paused = lend(lender, "--pause")
        assert paused["refusal"] == "its owner has paused it"
        again = swarm.run(PROMPT, STRICT, peers=[0])
        assert again.token_ids == answer.token_ids and again.receipt["chunks"]["verified"] == 0
        assert lend(lender)["borrowers"][0]["requests"] == borrower["requests"], "nothing was computed"

        swarm.restart(lender)
        assert lend(lender)["rules"]["paused"], "a pause outlives a restart"
        lend(lender, "--resume")
        back = swarm.run(PROMPT, STRICT, peers=[0])
        assert back.token_ids == answer.token_ids and back.receipt["chunks"]["verified"] > 0


def test_members_know_who_lends_nothing_and_a_pause_in_the_middle_costs_only_time() -> None:
    with Swarm() as swarm:
        swarm.start(1)
        swarm.start(1, options=["--bootstrap", swarm.nodes[0].address])
        client, lender = swarm.nodes
        until(lambda: excluded(client, lender) is None, "both know each other")
        alone = swarm.run(PROMPT, STRICT, alone=True)

        def pause(index: int) -> None:
            if index == 3:
                lend(lender, "--pause")

        answer = swarm.run(PROMPT, STRICT, peers=[1], on_token=pause)
        assert answer.returncode == 0 and answer.token_ids == alone.token_ids, answer.narration
        until(lambda: excluded(client, lender) == "its owner lends nothing now", "the swarm is told")
        lend(lender, "--resume")
        until(lambda: excluded(client, lender) is None, "and told again")
