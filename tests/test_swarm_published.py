"""One act puts a model on the swarm: nobody types anything at the other devices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from puppets import write_puppet
from waiting import until

from node.gateway.client.client import call_node
from node.store.manifest import MANIFEST_FILE
from node.store.partial import partial_path
from scripts.harness.swarm import NodeProcess, Swarm

pytestmark = pytest.mark.swarm

FOLLOWS = {ord(a): ord(b) for a, b in zip("abcdefg", "bcdefga", strict=True)}


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """Three members."""
    with Swarm(lend="all") as swarm:
        swarm.start(1)
        swarm.start(2, options=swarm.bootstrap([0]))
        yield swarm


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_puppet(tmp_path / "alphabet", FOLLOWS, config={"num_hidden_layers": 3})


def command(node: NodeProcess, *arguments: str) -> str:
    whole = [sys.executable, "-m", "node", *arguments, "--data-dir", str(node.data_dir)]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parts_of(node: NodeProcess) -> dict[str, dict[str, Any]]:
    listed = json.loads(command(node, "models", "--json"))["parts"]
    return {part["model_id"]: part for part in listed}


def holds_all(node: NodeProcess, model_id: str) -> bool:
    part = parts_of(node).get(model_id)
    return part is not None and part["held_bytes"] == part["weights_bytes"]


def answer_of(node: NodeProcess) -> dict[str, Any]:
    options = ["--privacy", "strict", "--max-tokens", "9", "--temperature", "0", "--json"]
    lines = command(node, "run", "--model", "alphabet", *options, "abc").splitlines()
    return dict(json.loads(lines[-1]))


def answer_by_peers(node: NodeProcess) -> str:
    """The answer, once the peers' word that they serve the model has come: before, all is computed at home."""
    answers = []

    def is_by_peers() -> bool:
        answers.append(answer_of(node))
        return bool(answers[-1]["chunks"]["verified"])

    until(is_by_peers, "peers take part")
    assert len({answer["text"] for answer in answers}) == 1 and answers[-1]["mode"] == "strict"
    return str(answers[-1]["text"])


def test_an_import_reaches_every_member_and_outlives_the_device_that_made_it(swarm: Swarm, checkpoint: Path) -> None:
    owner, *helpers = swarm.nodes
    model_id = json.loads(command(owner, "import", str(checkpoint), "--name", "alphabet", "--json"))["model_id"]
    for helper in helpers:
        until(lambda helper=helper: holds_all(helper, model_id), "a member holds it")  # type: ignore[misc]
    (told,) = json.loads(command(owner, "models", "--json"))["models"][:1]
    assert told["name"] == "alphabet" and told["published"]
    assert answer_by_peers(owner) == "defgabcde"
    assert "alphabet" in {
        one["model"] for helper in helpers for one in call_node(helper.data_dir, "lending")["borrowers"]
    }

    for node in swarm.nodes:
        node.kill()
    swarm.restart(helpers[0])  # alone: who published it is not there
    until(lambda: "are served" in helpers[0].narration().rpartition("stopping")[2], "it serves what its disk has")
    swarm.restart(owner, options=swarm.bootstrap([1]))
    assert answer_by_peers(owner) == "defgabcde"


@pytest.mark.long
def test_what_is_taken_off_or_not_wanted_leaves_nothing(swarm: Swarm, checkpoint: Path) -> None:
    owner, first, second = swarm.nodes
    assert call_node(second.data_dir, "lending_set", replicate=False)["replicates"] is False
    model_id = json.loads(command(owner, "import", str(checkpoint), "--no-publish", "--name", "alphabet", "--json"))[
        "model_id"
    ]
    assert json.loads(command(owner, "models", "publish", "alphabet", "--json"))["model_id"] == model_id
    until(lambda: holds_all(first, model_id), "a member holds it")
    assert parts_of(second) == {}, "its owner wants none"
    command(owner, "models", "unpublish", "alphabet")
    until(lambda: not parts_of(first), "the part is gone")
    assert not partial_path(first.data_dir / "models", model_id).exists()
    assert answer_of(owner)["text"] == "defgabcde", "it is still here"


@pytest.mark.long
def test_what_the_user_fetched_stays_when_the_model_is_taken_back(swarm: Swarm, checkpoint: Path) -> None:
    """Found in a review: a replica's end deleted what a pull of the user's had left for its next time."""
    owner, puller, paused = swarm.nodes
    words = ["import", str(checkpoint), "--no-publish", "--name", "alphabet", "--json"]
    model_id = json.loads(command(owner, *words))["model_id"]
    begun = partial_path(paused.data_dir / "models", model_id)
    begun.mkdir(parents=True)
    (begun / MANIFEST_FILE).write_bytes((owner.data_dir / "models" / model_id / MANIFEST_FILE).read_bytes())
    command(owner, "models", "publish", "alphabet")
    for node in (puller, paused):
        until(lambda node=node: holds_all(node, model_id), "a member holds it")  # type: ignore[misc]
    command(puller, "pull", model_id, "--name", "mine")
    command(owner, "models", "unpublish", "alphabet")
    for node in (puller, paused):
        until(lambda node=node: "its replica ended" in node.narration(), "it is no replica any more")  # type: ignore[misc]
    assert "mine" in {model["name"] for model in json.loads(command(puller, "models", "--json"))["models"]}
    assert holds_all(paused, model_id), "every file that came is still here"
