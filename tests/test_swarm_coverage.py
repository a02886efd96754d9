"""Coverage that lasts, with real processes: layers are taken over from who left, handed over before a drop."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from waiting import until

from node.gateway.client.client import call_node
from node.serving.hosting import layer_index
from node.store.check_file import check_bytes
from node.store.manifest import MANIFEST_FILE, UNITS_FOLDER
from node.store.partial import PIECES_FOLDER, partial_path
from node.store.stored import StoredModel
from node.store.unit_file import unit_path
from node.transfer.holders import layer_sizes
from scripts.harness.swarm import PROGRAM, NodeProcess, Swarm

pytestmark = pytest.mark.swarm

PROMPT = "Once upon a time"
GREEDY = ["--temperature", "0", "--max-tokens", "8", "--ignore-eos"]
WITHIN_S = 60.0
LENT = ("gate_up", "down")


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """One node, which holds all of the story model."""
    with Swarm(lend="all") as swarm:
        swarm.start(1)
        yield swarm


def model_of(node: NodeProcess) -> StoredModel:
    (path,) = (node.data_dir / "models").glob("[0-9a-f]*")
    return StoredModel(path)


def kept(model: StoredModel, parts: Sequence[set[int]]) -> Callable[[Path], None]:
    """Puts layers on the disks of nodes 1, 2, ... as their earlier lives would have left them; the head is the layer
    after the last."""

    def prepare(data_dir: Path) -> None:
        layers = parts[int(data_dir.name.removeprefix("node")) - 1]
        folder = partial_path(data_dir / "models", model.model_id)
        (folder / UNITS_FOLDER).mkdir(parents=True)
        (folder / PIECES_FOLDER).mkdir()
        shutil.copy(model.path / MANIFEST_FILE, folder)
        for ref in model.units:
            if layer_index(model.manifest, ref) in layers:
                shutil.copy(unit_path(model.path / UNITS_FOLDER, ref.sha256), folder / UNITS_FOLDER)

    return prepare


def memory_for(model: StoredModel, *parts: set[int]) -> list[str]:
    """Options of a node that has memory for the largest of these sets of layers."""
    sizes = layer_sizes(model.manifest)
    memory = max(sum(sizes[layer] for layer in layers) for layers in parts)
    return ["--model", model.model_id, "--memory", str(memory)]


def start_holding(swarm: Swarm, model: StoredModel, *parts: set[int]) -> None:
    """A node for each of these sets of layers, with memory for the largest of them."""
    options = [*memory_for(model, *parts), *swarm.bootstrap([0])]
    swarm.start(len(parts), options=options, prepare=kept(model, parts))
    for node in swarm.nodes[1:]:
        until(lambda node=node: held_by(swarm.nodes[0], node), f"{node.data_dir} serves")  # type: ignore[misc]


def held_by(observer: NodeProcess, node: NodeProcess) -> set[int]:
    """Layers that a node announces, as another one hears."""
    for peer in call_node(observer.data_dir, "peers")["peers"]:
        if peer["peer_id"] == node.peer_id and peer["connected"]:
            spans = [span.split("-") for span in (peer["layers"] or "").split(", ") if span and span[0].isdigit()]
            return {layer for span in spans for layer in range(int(span[0]), int(span[-1]) + 1)}
    return set()


def holders(observer: NodeProcess, nodes: list[NodeProcess]) -> Counter[int]:
    """How many of these nodes, one of which observes, hold each layer."""
    return Counter(layer for node in nodes if node is not observer for layer in held_by(observer, node))


def test_a_layer_that_lost_a_holder_is_taken_over_within_a_minute(swarm: Swarm) -> None:
    """Six nodes. Without the seed each layer has two holders or more; one of two holders of layer 4 is killed."""
    (seed,) = swarm.nodes
    expected = swarm.run(PROMPT, ["--privacy", "local", *GREEDY], alone=True)
    shutil.rmtree(swarm.folder / "client")  # the next client is to be a thin one
    model = model_of(seed)
    start_holding(swarm, model, {3, 4, 5, 6}, {0, 1, 2, 6}, {0, 3, 4, 5}, {1, 2, 5, 6}, {0, 1, 2, 3})
    thin = ["--model", model.model_id, "--thin", "--privacy", "split", *GREEDY]
    first = swarm.run(PROMPT, thin, peers=[0])
    assert first.returncode == 0, first.narration
    swarm.nodes[1].kill()
    seed.stop()
    left = swarm.nodes[2:]
    assert not covered_twice(left)
    until(lambda: covered_twice(left), "every layer has two holders", WITHIN_S)
    assert sum("too few nodes hold" in node.narration() for node in left) < len(left)
    answer = swarm.run(PROMPT, thin, peers=[2, 3, 4, 5])
    assert answer.token_ids == expected.token_ids, answer.narration
    assert answer.receipt["chunks"]["verified"] > 0


def covered_twice(nodes: list[NodeProcess]) -> bool:
    """Whether two observers, who do not see themselves, make out two holders of each layer between them; two of the
    nodes hold the head, which is not shown."""
    first, second = nodes[0], nodes[1]
    counts = holders(first, nodes) + Counter(held_by(second, first))
    return all(counts[layer] >= 2 for layer in range(6))


def test_a_node_with_less_memory_serves_until_others_have_taken_over(swarm: Swarm) -> None:
    (seed,) = swarm.nodes
    swarm.run(PROMPT, ["--privacy", "local", *GREEDY], alone=True)
    model = model_of(seed)
    start_holding(swarm, model, {2, 3, 4}, {0, 1, 2}, {0, 1, 5}, {0, 1, 6})
    shrunk = swarm.nodes[1]
    swarm.restart(shrunk, options=[*memory_for(model, {3}), *swarm.bootstrap([0])])
    others = swarm.nodes[2:]

    def are_served() -> bool:
        return {3, 4} <= held_by(seed, shrunk).union(*(told(node, "are served") for node in others))

    until(are_served, "another node takes over what it does not keep", WITHIN_S)
    if "not within --memory" in shrunk.narration():  # else its restart took so long that others had taken over before
        until(lambda: told(shrunk, "no longer serves"), "it drops what others hold")
    until(lambda: len(held_by(seed, shrunk)) == 1, "it announces what it keeps")
    for layer, dropped in told(shrunk, "no longer serves").items():
        if layer in {3, 4}:
            served = [told(node, "are served").get(layer, "never") for node in others]
            assert min(served) <= dropped, "first another serves it, then it is dropped"


def told(node: NodeProcess, words: str) -> dict[int, str]:
    """The layers of which a node's log says this, as in "layers 2, 4-5", with HH:MM:SS of the last time."""
    times = {}
    for line in node.narration().splitlines():
        named = re.search(r"layers? ([0-9][0-9, -]*)", line) if words in line else None
        for span in named[1].strip().split(", ") if named else []:
            first, _, last = span.partition("-")
            times |= dict.fromkeys(range(int(first), int(last or first) + 1), line.split()[0])
    return times


def test_a_thin_node_answers_and_serves_others_within_one_bound(swarm: Swarm) -> None:
    """It lends the feed-forward layers and keeps the rest; what --memory leaves beside that is for others."""
    (seed,) = swarm.nodes
    expected = swarm.run(PROMPT, ["--privacy", "local", *GREEDY], alone=True)
    model = model_of(seed)
    swarm.start(1, options=swarm.bootstrap([0]))
    own = sum(ref.num_bytes for ref in model.units if ref.kind not in LENT)
    checks = sum(check_bytes(ref) for ref in model.units if ref.kind in LENT)
    sizes = layer_sizes(model.manifest)
    room = 2 * sizes[0]
    spare = max(ref.num_bytes for ref in model.units if ref.kind in LENT)
    lend = ["--model", model.model_id, "--thin", "--lend", "ffn", "--memory", str(own + checks + room + spare)]
    swarm.start(1, options=[*lend, *swarm.bootstrap([0, 1])])
    thin = swarm.nodes[-1]

    def served_bytes() -> int:
        return sum(sizes[layer] for layer in told(thin, "are served"))

    until(lambda: served_bytes() > room - min(sizes), "it serves all that fits")
    until(lambda: "thin" in ended_jobs(thin), "the model went by")
    command = [*PROGRAM, "run", "--json", "--data-dir", str(thin.data_dir), "--model", model.model_id]
    asked = subprocess.run(
        [*command, "--privacy", "split", *GREEDY, "--", PROMPT],
        env=swarm.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    events = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [event["id"] for event in events if event["type"] == "token"] == expected.token_ids
    assert events[-1]["placement"]["gate_up"] == "lent" and events[-1]["chunks"]["verified"] > 0
    assert room - min(sizes) < served_bytes() <= room
    assert held_by(seed, thin) == {layer for layer in told(thin, "are served") if layer < len(sizes) - 1}


def ended_jobs(node: NodeProcess) -> set[str]:
    jobs = call_node(node.data_dir, "transfers")["transfers"]
    return {job["kind"] for job in jobs if job["state"] == "done"}
