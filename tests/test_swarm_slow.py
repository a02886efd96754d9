"""Real peers that are slow, faulty or noisy are left within a few tokens, and the text is that of this device."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest

from node.config import NodeConfig
from node.engine import Engine
from node.execution.account import CREDIT_S, Reason
from node.execution.config import ExecutionConfig
from node.model.sampling import SamplingParams
from node.node import Node
from node.paths import DataDir
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.store.library import Library
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.asking import answer
from scripts.harness.swarm import RunResult, Swarm

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time, there was a little fox who"
TOKENS = 30
SAMPLING = ["--ignore-eos", "--max-tokens", str(TOKENS), "--temperature", "0.8", "--seed", "11"]
UNITS_A_TOKEN = 24
LATE = ["--fault", "slow", "--delay", "0.3"]


@pytest.fixture(scope="module")
def alone() -> Iterator[RunResult]:
    """The answer of this device alone."""
    with Swarm() as swarm:
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "local"], alone=True)
        assert result.returncode == 0 and len(result.tokens) == TOKENS
        yield result


def check(result: RunResult, alone: RunResult, faulty: list[str], standing: str) -> None:
    """Same text; those who misbehave were left, the receipt says so, and nobody waited for them for long."""
    assert result.returncode == 0, result.narration
    assert result.token_ids == alone.token_ids and result.text == alone.text
    receipt, chunks = result.receipt, result.receipt["chunks"]
    assert chunks["merged"] == chunks["verified"] + chunks["local"]
    assert chunks["rejected"] == 0
    left = {peer["peer_id"]: peer["status"] for peer in receipt["peers"]}
    for peer_id in faulty:
        # Two late answers in a row suspend a peer until it answers, which may come before its credit is used up.
        assert left[peer_id] in (standing, "suspended" if standing == "late" else standing), receipt
        assert left[peer_id] == "suspended" or f"peer …{peer_id[-6:]}" in receipt["note"]
    config = ExecutionConfig()
    most_s = config.exchange_s + config.way_factor * config.way_limit_s
    assert receipt["timings_s"]["wait"] < len(left) * 2 * CREDIT_S + chunks["sent"] * most_s


@pytest.mark.parametrize(
    ("fault", "standing", "role"),
    [
        (LATE, "late", "share"),
        pytest.param(["--fault", "later", "--delay", "0.05"], "late", "pad", marks=pytest.mark.long),
        (["--fault", "error-13"], "failing", "pad"),
        (["--fault", "junk"], "noisy", "share"),
    ],
    ids=["late", "later", "errors", "junk"],
)
def test_a_faulty_guard_is_left_within_a_few_tokens(
    fault: list[str], standing: str, role: str, alone: RunResult
) -> None:
    with Swarm() as swarm:
        swarm.start(2, {0: [*fault, "--role", role]})
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"], peers=[0, 1] if role == "pad" else [1, 0])
        check(result, alone, [swarm.nodes[0].peer_id], standing)
        assert result.receipt["mode"] == "split", "the mode stays what it was"
        few = 8 if standing == "late" else 14  # pads of eight tokens are asked for, and spoilt, at once
        assert result.receipt["chunks"]["sent"] <= few * UNITS_A_TOKEN
        assert result.receipt["chunks"]["local"] >= (TOKENS - few) * UNITS_A_TOKEN


@pytest.mark.long
def test_two_slow_peers_in_strict_cost_one_credit_each(alone: RunResult) -> None:
    with Swarm() as swarm:
        swarm.start(2, {0: LATE, 1: ["--fault", "later", "--delay", "0.02"]})
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "strict"])
        check(result, alone, [node.peer_id for node in swarm.nodes], "late")
        assert result.receipt["mode"] == "strict"
        assert result.receipt["chunks"]["sent"] <= 10 * UNITS_A_TOKEN


def test_in_strict_a_good_peer_takes_over(alone: RunResult) -> None:
    with Swarm() as swarm:
        swarm.start(2, {0: ["--fault", "slow", "--delay", "0.9"]})
        result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "strict"])
        check(result, alone, [], "late")  # whether it is left, or never asked again since the other is faster
        assert result.receipt["chunks"]["verified"] > result.receipt["chunks"]["merged"] / 2


@pytest.mark.long
def test_a_peer_that_recovers_is_used_again() -> None:
    """Late for five answers, then honest: left, tried again when its rest is over, and used."""
    params = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    with Swarm() as swarm:
        swarm.start(1, {0: ["--fault", "slow", "--delay", "0.6", "--until", "5"]})
        model = Library(DataDir.open(swarm.folder / "client").models).resolve("story")
        address = parse_multiaddr(swarm.nodes[0].address)
        identity = Identity.from_seed(secrets.token_bytes(32))
        config = NodeConfig(identity, None, (address,), threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
        prompt = model.tokenizer().encode(PROMPT)
        with Node(config, [model]) as node:
            assert node.registry.wait_settled([str(address)], 1, 20) is None and node.registry.usable()
            with Engine(node, Library(model.path.parent), SessionConfig()) as engine:
                first, receipt = answer(engine, model, prompt, params, Privacy.STRICT)
                (runner,) = engine._runners.values()
                assert runner._session is not None
                (peer,) = runner._session.peers
                for _ in range(20):  # two late answers suspend it until it answers; that takes no credit
                    if peer.account.left_for is None:
                        first, receipt = answer(engine, model, prompt, params, Privacy.STRICT)
                assert receipt.chunks.local > 0
                assert peer.account.left_for is Reason.LATE and peer.standing == "late"
                deadline = time.monotonic() + 60
                while peer.account.reason is not None:
                    assert time.monotonic() < deadline, "it is not used again"
                    time.sleep(max(0.0, peer.account.rests_until - time.monotonic()))  # when it is tried again
                    again, receipt = answer(engine, model, prompt, params, Privacy.STRICT)
                    assert again == first
                assert receipt.chunks.verified > UNITS_A_TOKEN
                assert peer.standing == "active"
