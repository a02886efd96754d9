"""A serving peer that turns on its client: it costs the client neither its life nor its memory."""

from __future__ import annotations

import time

import pytest

from scripts.attacks.measure import MemoryWatch
from scripts.attacks.serving import TURNED
from scripts.harness.honest_client import HonestClient
from scripts.harness.programs import program
from scripts.harness.swarm import Swarm

pytestmark = pytest.mark.swarm

SERVING = program("scripts.attacks.serving")
TRIES = 5
WATCH_S = 2.5
"""The peer turns after a second of silence and ends half a second later; libzmq's heartbeats come every second."""
MAX_GROWN_MIB = {"frames": 96.0, "pour": 64.0}
"""A session holds 32 MiB beyond what it is owed. Of a message without an end the client is told nothing: it looks ten
times a second how much has come."""
OTHERWISE_MIB = 16.0
ALLOWANCE_MIB = 24.0
"""What the first answer itself takes: a session, its checks, a cache."""


@pytest.mark.parametrize(
    "deed", ["push", "reset", *(pytest.param(deed, marks=pytest.mark.long) for deed in ("pour", "frames"))]
)
def test_a_guard_that_turns_on_its_idle_client(deed: str) -> None:
    with Swarm() as swarm:
        swarm.start(1)
        swarm.start(1, {0: ["--deed", deed]}, swarm.bootstrap(), SERVING)
        swarm.start(1, options=swarm.bootstrap())
        node = swarm.nodes[2]
        client = HonestClient(node, tokens=8)
        with MemoryWatch(node) as memory:
            asked = (client.ask("split").lent for _ in range(TRIES))  # a busy machine may compute an answer alone
            assert any(lent > 0.5 for lent in asked), "the peer that is to turn was used"
            until = time.monotonic() + WATCH_S
            while node.process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
        assert TURNED in swarm.nodes[1].narration(), "the peer did what it is there for"
        assert node.process.poll() is None, f"{deed} ended the client: {node.narration()[-300:]}"
        limit_mib = MAX_GROWN_MIB.get(deed, OTHERWISE_MIB) + ALLOWANCE_MIB
        assert memory.grown_mib < limit_mib, f"{deed} made it hold {memory.grown_mib:.0f} MiB"
        client.ask("split")  # and it answers as before
