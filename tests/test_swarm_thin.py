"""A thin client over real processes: nodes hold parts of the model, and leave while it answers."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import until

from scripts.harness.swarm import NodeProcess, RunResult, Swarm

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time"
TOKENS = 16
GREEDY = ["--temperature", "0", "--max-tokens", str(TOKENS), "--ignore-eos"]


@pytest.fixture(scope="module")
def whole() -> Iterator[Swarm]:
    """Four nodes with all of the model."""
    with Swarm(lend="all") as swarm:
        swarm.start(4)
        yield swarm


@pytest.fixture(scope="module")
def expected(whole: Swarm) -> RunResult:
    answer = whole.run(PROMPT, ["--privacy", "local", *GREEDY], alone=True)
    shutil.rmtree(whole.folder / "client")
    return answer


def thin_run(swarm: Swarm, model_id: str, *options: str, **how: Any) -> RunResult:
    return swarm.run(PROMPT, ["--model", model_id, *GREEDY, *options], **how)


def models_of(swarm: Swarm) -> dict[str, Any]:
    command = [sys.executable, "-m", "node", "models", "--json", "--data-dir", str(swarm.folder / "client")]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (model,) = listed["models"]
    return dict(model)


def test_a_thin_client_answers_what_a_whole_one_answers(whole: Swarm, expected: RunResult) -> None:
    model_id = expected.receipt["model_id"]
    answer = thin_run(whole, model_id, "--privacy", "split", "--thin")
    assert answer.token_ids == expected.token_ids, answer.narration
    receipt = answer.receipt
    assert set(receipt["placement"].values()) == {"lent"} and receipt["chunks"]["local"] == 0
    model = models_of(whole)
    assert receipt["memory"]["weights_here_bytes"] == model["held_bytes"] == 0
    assert 0 < receipt["memory"]["checks_bytes"] <= model["checks_bytes"] < model["weights_bytes"] / 8
    checks = list((whole.folder / "client").rglob("*.check"))
    assert checks and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in checks)
    assert not list((whole.folder / "client").rglob("*.w8")), "no weights are kept"

    again = thin_run(whole, model_id, "--privacy", "split")
    assert again.token_ids == expected.token_ids and "fetched" not in again.narration
    refused = thin_run(whole, model_id, "--privacy", "local")
    assert refused.returncode == 1 and "the weights of" in refused.narration
    refused = thin_run(whole, model_id, "--privacy", "split", "--lend", "ffn")
    assert refused.returncode == 1 and "--lend" in refused.narration and not refused.tokens


@pytest.mark.parametrize("lend", ["ffn", "layers", "all"])
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_the_text_is_the_same_in_every_placement(whole: Swarm, expected: RunResult, mode: str, lend: str) -> None:
    answer = whole.run(PROMPT, ["--privacy", mode, "--lend", lend, *GREEDY])
    assert answer.token_ids == expected.token_ids, answer.narration
    lent = {"ffn": {"gate_up", "down"}, "layers": {"qkv", "o", "gate_up", "down"}}.get(lend)
    placement = answer.receipt["placement"]
    assert {kind for kind, place in placement.items() if place == "lent"} == (lent or placement.keys())
    assert answer.receipt["chunks"]["verified"] > 0


def parts_are_served(node: NodeProcess, starts: int = 1) -> bool:
    """Whether a node that was started so often has all the layers that it took."""
    if node.narration().count("are taken") < starts:
        return False
    lines = [line for line in node.narration().splitlines() if "are taken" in line or "are served" in line]
    taken = [line.partition("layers ")[2].split(" are ") for line in lines]
    return len(taken) > 1 and taken[0][0] == taken[-1][0] and taken[-1][1] == "served"


def test_holders_leave_in_the_middle_and_with_the_last_it_ends_honestly(expected: RunResult) -> None:
    """Each of four nodes holds 60 % of the layers. Two are killed: others do their part, or their weights are
    borrowed. Then the rest: the text so far stays, and the reason names a layer."""
    model_id = expected.receipt["model_id"]
    size = expected.receipt["memory"]["weights_here_bytes"]
    with Swarm(lend="all") as swarm:
        swarm.start(1)
        (seed,) = swarm.nodes
        swarm.model = model_id
        lent = ["--memory", str(int(0.6 * size))]
        for _ in range(4):
            swarm.start(1, options=[*lent, *swarm.bootstrap([0])])
            until(lambda: parts_are_served(swarm.nodes[-1]), "its layers are served", 30)
        fetched = thin_run(swarm, model_id, "--privacy", "split", "--thin", "--max-tokens", "1", peers=[0])
        assert fetched.returncode == 0, fetched.narration
        seed.stop()

        holders = [1, 2, 3, 4]
        answer = thin_run(swarm, model_id, "--privacy", "split", peers=holders)
        assert answer.token_ids == expected.token_ids, answer.narration
        assert answer.receipt["chunks"]["verified"] > 0

        def kill(index: int) -> None:
            for at, node in ((3, 1), (6, 3)):
                if index == at:
                    swarm.nodes[node].kill()

        answer = thin_run(swarm, model_id, "--privacy", "split", peers=holders, on_token=kill)
        assert answer.token_ids == expected.token_ids, answer.narration
        assert answer.receipt["finish_reason"] == "length" and answer.receipt["chunks"]["local"] > 0

        for back in (swarm.nodes[1], swarm.nodes[3]):
            swarm.restart(back, options=lent)
        for back in (swarm.nodes[1], swarm.nodes[3]):
            until(lambda back=back: parts_are_served(back, 2), "its layers are served again", 30)  # type: ignore[misc]

        def kill_all(index: int) -> None:
            if index == 5:
                for node in holders:
                    swarm.nodes[node].kill()

        options = ("--privacy", "split", "--deadline", "4")
        answer = thin_run(swarm, model_id, *options, peers=holders, on_token=kill_all)
        assert answer.returncode == 1 and answer.receipt["finish_reason"] == "error", answer.narration
        assert 5 < len(answer.tokens) < TOKENS and answer.token_ids == expected.token_ids[: len(answer.tokens)]
        assert expected.text.startswith(answer.text)
        assert re.search(r"no peer that is there computes (layer \d|the head)", answer.narration), answer.narration
