"""Pads that a node makes while it is idle: the next `strict` answer finds them, and the text stays the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from waiting import until

from node.gateway.client.client import call_node
from scripts.harness.honest_client import PROMPT, HonestClient
from scripts.harness.programs import environment
from scripts.harness.swarm import Swarm

pytestmark = pytest.mark.swarm
ROWS = 128
"""More than prompt and answer have."""


def test_an_idle_node_makes_pads_for_the_next_answers() -> None:
    with Swarm() as swarm:
        swarm.start(1)
        swarm.start(1, options=swarm.bootstrap())
        client = swarm.nodes[1]
        program = HonestClient(client)
        assert call_node(client.data_dir, "pads") == {"rows": {}}, "nobody has asked for strict yet"
        first = program.ask("strict").receipt
        assert first["mode"] == "strict" and first["pads"]["rows"] > 0 and first["chunks"]["verified"] > 0

        def ready() -> int:
            return max(call_node(client.data_dir, "pads")["rows"].values(), default=0)

        until(lambda: ready() >= ROWS, "no pads were made")
        command = [sys.executable, "-m", "node", "models", "--json", "--data-dir", str(client.data_dir)]
        listed = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True).stdout
        assert json.loads(listed)["models"][0]["pads_ready"] >= ROWS
        second = program.ask("strict", PROMPT).receipt
        assert second["pads"]["rows"] == 0 and second["chunks"]["verified"] > 0
