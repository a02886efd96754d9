"""Weights from peers with real processes: a node that had none serves, a killed one goes on, a liar is left out."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_model_checkpoints import write_checkpoint

from node.gateway.client.client import call_node
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel
from protocol.limits import PIECE_BYTES
from scripts.harness.swarm import PROGRAM, NodeProcess, RunResult, Swarm

pytestmark = pytest.mark.swarm

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 2304,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 80,
}
PROMPT = "Hello"
SAMPLING = ["--ignore-eos", "--max-tokens", "12", "--temperature", "0.9", "--seed", "3"]
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "wide", SIZES)


@pytest.fixture(scope="module")
def stored(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """The same model, imported here to compare with."""
    return StoredModel(import_checkpoint(checkpoint, tmp_path_factory.mktemp("store")).path)


@pytest.fixture(scope="module")
def swarm(checkpoint: Path) -> Iterator[Swarm]:
    """Two nodes that hold the model; tests add others."""
    with Swarm(model=str(checkpoint)) as swarm:
        swarm.start(2)
        yield swarm


@pytest.fixture(scope="module")
def alone(swarm: Swarm) -> RunResult:
    """The answer of one device alone."""
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "local"], alone=True)
    assert result.returncode == 0, result.narration
    return result


def transfers(node: NodeProcess) -> list[dict[str, Any]]:
    return list(call_node(node.data_dir, "transfers")["transfers"])


def wait_ended(node: NodeProcess) -> dict[str, Any]:
    """The first transfer of a node, once it is over."""
    deadline = time.monotonic() + DEADLINE_S
    while (job := transfers(node)[0])["state"] == "running":
        assert time.monotonic() < deadline, (job, node.narration())
        time.sleep(0.05)
    return job


def two_layers_and_head(stored: StoredModel) -> int:
    """Bytes; the head is taken and served like one more layer."""
    return sum(ref.num_bytes * (2 if ref.layer == 0 else 1) for ref in stored.units if ref.layer in (0, None))


def test_a_node_that_had_nothing_takes_layers_serves_them_and_the_answer_is_the_same(
    swarm: Swarm, stored: StoredModel, alone: RunResult
) -> None:
    """The newcomer holds two of three layers; a lane of it and a whole node computes those, and the rest is said."""
    memory = f"{two_layers_and_head(stored)}"
    swarm.start(1, options=["--model", stored.model_id, "--memory", memory, *swarm.bootstrap([0, 1])])
    newcomer = swarm.nodes[-1]
    job = wait_ended(newcomer)
    assert job["state"] == "done" and job["total_bytes"] == two_layers_and_head(stored), newcomer.narration()
    assert not list(newcomer.data_dir.glob("models/*/client.safetensors")), "it serves, and needs no more for that"
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split"], peers=[len(swarm.nodes) - 1, 0])
    assert result.text == alone.text, result.narration
    receipt = result.receipt
    assert receipt["mode"] == "split" and receipt["chunks"]["verified"] >= 12 * 2 * 4
    assert {peer["peer_id"] for peer in receipt["peers"] if peer["chunks"]} >= {newcomer.peer_id}
    assert "no lane holds layer " in receipt["note"] and receipt["chunks"]["local"] >= 12 * 4


def test_a_client_that_has_nothing_but_the_id_answers(
    swarm: Swarm, stored: StoredModel, alone: RunResult, tmp_path: Path
) -> None:
    own = ["--data-dir", str(tmp_path / "own"), "--model", stored.model_id]
    result = swarm.run(PROMPT, [*SAMPLING, "--privacy", "split", *own], peers=[0, 1])
    assert result.returncode == 0, result.narration
    assert result.text == alone.text and result.receipt["mode"] == "split"
    assert "fetching model" in result.narration
    again = swarm.run(PROMPT, [*SAMPLING, "--privacy", "local", *own], alone=True)
    assert again.text == result.text and "fetching model" not in again.narration


def test_pull_by_id_goes_through_the_node_that_runs(swarm: Swarm, stored: StoredModel) -> None:
    swarm.start(1, options=["--model", "none", *swarm.bootstrap([0, 1])])
    node = swarm.nodes[-1]
    command = [*PROGRAM, "pull", stored.model_id, "--json", "--data-dir", str(node.data_dir)]
    pulled = subprocess.run(command, env=swarm.environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert pulled.returncode == 0 and json.loads(pulled.stdout)["model_id"] == stored.model_id, pulled.stderr
    assert StoredModel(node.data_dir / "models" / stored.model_id).units == stored.units
    unknown = subprocess.run(
        [*PROGRAM, "pull", stored.model_id, "--data-dir", str(node.data_dir / "elsewhere")],
        env=swarm.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert unknown.returncode == 1 and "no node runs" in unknown.stderr


def test_a_lying_source_is_banned_and_the_rest_comes_from_elsewhere(checkpoint: Path, stored: StoredModel) -> None:
    """The honest one takes its time, so that the liar is asked for much."""
    with Swarm(model=str(checkpoint)) as swarm:
        swarm.start(2, {0: ["--fault", "false-piece"], 1: ["--fault", "slow-pieces", "--delay", "0.05"]})
        swarm.start(1, options=["--model", "none", *swarm.bootstrap([0, 1])])
        liar, _honest, node = swarm.nodes
        deadline = time.monotonic() + DEADLINE_S
        while sum(peer["connected"] for peer in call_node(node.data_dir, "peers")["peers"]) < 2:
            assert time.monotonic() < deadline, node.narration()
            time.sleep(0.05)
        call_node(node.data_dir, "pull", model=stored.model_id)
        assert wait_ended(node)["state"] == "done", node.narration()
        fetched = node.data_dir / "models" / stored.model_id
        for path in (path for path in stored.path.rglob("*") if path.is_file()):
            assert (fetched / path.relative_to(stored.path)).read_bytes() == path.read_bytes()
        assert f"source {liar.peer_id} sent a false piece" in node.narration()
        assert liar.peer_id in str(call_node(node.data_dir, "access"))


def test_a_kill_in_the_middle_costs_no_byte_that_was_there(checkpoint: Path, stored: StoredModel) -> None:
    with Swarm(model=str(checkpoint)) as swarm:
        swarm.start(1, {0: ["--fault", "slow-pieces", "--delay", "0.1"]})
        swarm.start(1, options=["--model", stored.model_id, *swarm.bootstrap()])
        node = swarm.nodes[1]
        deadline = time.monotonic() + DEADLINE_S
        while not transfers(node) or transfers(node)[0]["done_bytes"] < 3 * PIECE_BYTES:
            assert time.monotonic() < deadline, node.narration()
            time.sleep(0.01)
        node.kill()
        there = pieces_there(node.data_dir / "models" / ".partial" / stored.model_id, stored)
        total = sum(ref.num_bytes for ref in stored.units)
        assert 3 * PIECE_BYTES <= there < total
        swarm.restart(node, options=["--model", stored.model_id, *swarm.bootstrap([0])])
        job = wait_ended(node)
        assert job["state"] == "done" and job["total_bytes"] == total, node.narration()
        assert job["fetched_bytes"] == total - there, "nothing twice"


def pieces_there(folder: Path, stored: StoredModel) -> int:
    """Bytes of right pieces in whole units and in those that were on their way."""
    count = 0
    for ref in stored.units:
        right = (stored.path / "units" / f"{ref.sha256.hex()}.w8").read_bytes()
        for path in (folder / "units" / f"{ref.sha256.hex()}.w8", folder / "pieces" / ref.sha256.hex()):
            content = path.read_bytes() if path.exists() else b""
            for at in range(0, len(content), PIECE_BYTES):
                piece = content[at : at + PIECE_BYTES]
                count += len(piece) if piece == right[at : at + PIECE_BYTES] else 0
    return count
