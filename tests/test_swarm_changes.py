"""Peers that join or leave in the middle of an answer: used from the next chunk on, missed by nobody."""

from __future__ import annotations

import secrets
import threading
import time

import pytest
from swarm_harness import LaneWatch, NodeProcess, RunResult, Swarm

from node.model.sampling import SamplingParams
from node.node import Node, NodeConfig
from node.paths import DataDir
from node.privacy import Privacy
from node.session.receipt import Receipt
from node.session.session import Session, SessionConfig
from node.store.library import Library
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time, there was a little fox who"
TOKENS = 80
SAMPLING = ["--ignore-eos", "--max-tokens", str(TOKENS), "--temperature", "0.8", "--seed", "11"]
UNITS_A_TOKEN = 24


@pytest.fixture(scope="module")
def alone() -> RunResult:
    with Swarm() as swarm:
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "local"], alone=True)
        assert result.returncode == 0 and len(result.tokens) == TOKENS
        return result


class Goodbye:
    """Asks the busiest lane's guard of pads, or of shares, to leave when token 24 comes."""

    def __init__(self, swarm: Swarm, role: str) -> None:
        self._swarm, self._role = swarm, role
        self._watch: LaneWatch | None = None
        self.left: list[NodeProcess] = []
        self._waiting: list[threading.Thread] = []

    def __call__(self, index: int) -> None:
        if index == 16:
            self._watch = LaneWatch(self._swarm.nodes)
        if index == 24 and self._watch is not None:
            pad, share = self._watch.busiest()
            node = self._swarm.nodes[pad if self._role == "pad" else share]
            self.left.append(node)
            self._waiting.append(threading.Thread(target=node.stop))
            self._waiting[-1].start()

    def join(self) -> None:
        for thread in self._waiting:
            thread.join()


@pytest.mark.parametrize("role", ["pad", "share"])
def test_a_node_that_says_goodbye_in_the_middle_is_missed_by_nobody(role: str, alone: RunResult) -> None:
    """SIGTERM to a guard at work: its chunks are answered, nothing is lost with it, the other lane goes on."""
    with Swarm() as swarm:
        swarm.start(4)
        goodbye = Goodbye(swarm, role)
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"], goodbye)
        goodbye.join()
        assert result.returncode == 0, result.narration
        assert result.token_ids == alone.token_ids and result.text == alone.text
        chunks = result.receipt["chunks"]
        assert chunks["lost"] == 0, "nothing was computed here because somebody went away"
        assert chunks["verified"] > 0.7 * chunks["merged"], "a busy machine may hedge a few, not many"
        (left,) = goodbye.left
        assert left.process.returncode == 0, "it ended by itself, in time"
        peers = {peer["peer_id"]: peer for peer in result.receipt["peers"]}
        assert peers[left.peer_id]["chunks"] > 0 and peers[left.peer_id]["status"] in ("left", "lost")
        stayed = [peer for peer_id, peer in peers.items() if peer_id != left.peer_id and peer["status"] == "active"]
        assert len(stayed) == 3


def test_a_lane_that_comes_up_in_the_middle_is_used(alone: RunResult) -> None:
    """Four nodes are named, two are there; the other two start when token 4 comes and get chunks of this answer."""
    with Swarm() as swarm:
        slow = ["--fault", "slow", "--delay", "0.004"]
        swarm.start(4, {0: slow, 1: slow})
        addresses = swarm.bootstrap()
        for node in swarm.nodes[2:]:
            assert node.stop() == 0

        def start_again(index: int) -> None:
            if index == 4:
                for node in swarm.nodes[2:]:
                    swarm.restart(node)

        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split", *addresses], start_again, alone=True)
        assert result.returncode == 0, result.narration
        assert result.token_ids == alone.token_ids and result.text == alone.text
        chunks = {peer["peer_id"]: peer["chunks"] for peer in result.receipt["peers"]}
        assert [peer["role"] for peer in result.receipt["peers"]] == ["pad", "share", "pad", "share"]
        newcomers = [chunks[node.peer_id] for node in swarm.nodes[2:]]
        assert min(newcomers) > 0 and sum(newcomers) > UNITS_A_TOKEN, chunks
        assert "2 of 4 places are empty" in result.receipt["note"]


def test_a_request_that_found_nobody_is_helped_by_who_comes() -> None:
    """Who was named is away at first: the answer begins here, says so, and goes on with them; text as alone."""
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    with Swarm() as swarm:
        swarm.start(2)
        addresses = tuple(parse_multiaddr(node.address) for node in swarm.nodes)
        for process in swarm.nodes:
            assert process.stop() == 0
        model = Library(DataDir.open(swarm.folder / "client").models).resolve("story")
        identity = Identity.from_seed(secrets.token_bytes(32))
        config = NodeConfig(identity, None, addresses, threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
        prompt = model.tokenizer().encode(PROMPT)
        with Node(config, [model]) as node:
            with Session(node, model, SessionConfig(Privacy.LOCAL)) as session:
                *here, _receipt = session.answer(prompt, params)
            with Session(node, model, SessionConfig(Privacy.SPLIT)) as session:
                assert session.mode is Privacy.LOCAL and session.note and "computed here" in session.note
                answer = session.answer(prompt, params)
                tokens = [next(answer), next(answer)]
                for process in swarm.nodes:
                    swarm.restart(process)
                deadline = time.monotonic() + 30
                while len(node.registry.usable()) < 2:
                    assert time.monotonic() < deadline, "they are not found again"
                    time.sleep(0.05)
                tokens.append(next(answer))
                assert all(peer.channel.wait_connected(10) for peer in session.peers) and session.peers
                *rest, receipt = answer
        assert [token.id for token in [*tokens, *rest]] == [token.id for token in here]
        assert isinstance(receipt, Receipt) and receipt.mode == "split"
        assert receipt.chunks.verified > 0 and "from the middle on" in (receipt.note or "")
