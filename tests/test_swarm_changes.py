"""Peers that join or leave in the middle of an answer: used from the next chunk on, missed by nobody."""

from __future__ import annotations

import queue
import secrets
import threading
import time

import pytest

from node.config import NodeConfig
from node.engine import Engine
from node.engine.request import Completed, Event, Token
from node.model.sampling import SamplingParams
from node.node import Node
from node.paths import DataDir
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.store.library import Library
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.asking import answer, request_of
from scripts.harness.swarm import LaneWatch, NodeProcess, RunResult, Swarm

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


@pytest.mark.parametrize("role", ["pad", pytest.param("share", marks=pytest.mark.long)])
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


@pytest.mark.long
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


def next_token(events: queue.Queue[Event]) -> int:
    """The id of the next token; notes and progress are passed over."""
    while not isinstance(event := events.get(timeout=30), Token):
        pass
    return event.id


def test_a_request_that_found_nobody_is_helped_by_who_comes() -> None:
    """Who was named is away at first: the answer begins here, says so, and goes on with them; text as alone."""
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    with Swarm() as swarm:
        swarm.start(2)
        addresses = tuple(parse_multiaddr(node.address) for node in swarm.nodes)
        for process in swarm.nodes:
            assert process.stop() == 0
        model = Library(DataDir.open(swarm.folder / "client").models).resolve("story")
        identity = Identity.from_seed(secrets.token_bytes(32))
        config = NodeConfig(identity, None, addresses, threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
        prompt = model.tokenizer().encode(PROMPT)
        with Node(config, [model]) as node, Engine(node, Library(model.path.parent), SessionConfig()) as engine:
            here, _receipt = answer(engine, model, prompt, params, Privacy.LOCAL)
            events: queue.Queue[Event] = queue.Queue(maxsize=1)  # the engine goes no faster than it is read
            engine.submit(request_of(model, prompt, params, Privacy.SPLIT), events.put)
            tokens = [next_token(events), next_token(events)]
            for process in swarm.nodes:
                swarm.restart(process)
            deadline = time.monotonic() + 30
            while len(node.registry.usable()) < 2:
                assert time.monotonic() < deadline, "they are not found again"
                time.sleep(0.05)
            while len(tokens) < params.max_tokens:
                time.sleep(0.05)  # a slow reader: lanes have time to come up before the answer is over
                tokens.append(next_token(events))
            while not isinstance(completed := events.get(timeout=30), Completed):
                pass
        receipt = completed.receipt
        assert tokens == here and receipt.mode == "split"
        assert receipt.chunks.verified > 0 and "from there on" in (receipt.note or "")
