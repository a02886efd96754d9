"""SmolLM2-135M-Instruct as a user has it: imported, measured, asked alone and over nodes, chatted with by HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_model_decoder import SHARED
from tui_driver import Driver

from node.kernels import select_kernels
from node.model.decoder import Decoder
from node.model.linear import LocalLinear
from node.store.gguf.checkpoint import GgufCheckpoint
from node.store.library import Library
from scripts.benchmarks.perplexity import perplexities
from scripts.harness.gateway_twin import GatewayTwin
from scripts.harness.real_models import SMOLLM2, NotFetchedError, smollm2_gguf, smollm2_models
from scripts.harness.swarm import PROGRAM, RunResult, Swarm
from tui.app import KekahydeApp
from tui.launcher import NodeLauncher

pytestmark = [pytest.mark.swarm, pytest.mark.realmodel]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
GREEDY = ["--chat", "--temperature", "0", "--max-tokens", "24"]
NUM_WINDOWS = 4


@pytest.fixture(scope="module")
def models() -> Path:
    try:
        return smollm2_models()
    except NotFetchedError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def swarm(models: Path) -> Iterator[Swarm]:
    with Swarm(model=SMOLLM2, models=models) as swarm:
        swarm.start(2, options=["--gateway", "127.0.0.1:0"])
        yield swarm


@pytest.fixture(scope="module")
def alone(swarm: Swarm) -> RunResult:
    return swarm.run(QUESTION, ["--privacy", "local", *GREEDY], alone=True)


def test_the_integers_cost_less_than_a_percent(models: Path, record_property: Any) -> None:
    texts = sorted((SHARED / "text" / "tinystories_samples").glob("*"))
    if not texts:
        pytest.skip("no text to read")
    text = texts[0].read_text(errors="ignore")[:40_000]
    in_float, in_integers = perplexities(smollm2_gguf(), models, text, NUM_WINDOWS)
    record_property("perplexities", (in_float, in_integers))
    print(f"perplexity {in_float:.3f} float, {in_integers:.3f} W8A12")
    assert in_float < 30 and abs(in_integers / in_float - 1) < 0.01


def test_the_float_model_is_that_of_transformers(models: Path) -> None:
    """Logits before quantization, of the same file."""
    import torch
    from transformers import AutoModelForCausalLM

    from node.store.hf.reference import ReferenceModel

    path = smollm2_gguf()
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ids = Library(models).resolve(SMOLLM2).tokenizer().encode("Once upon a time there was a fox who")
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(
        ReferenceModel(GgufCheckpoint(path)).logits(ids), expected, atol=1e-4 * abs(expected).max()
    )


def test_the_same_file_gives_the_same_model(models: Path, tmp_path: Path) -> None:
    assert Library(tmp_path).import_folder(smollm2_gguf()).model_id == Library(models).named()[SMOLLM2]


def test_it_answers(alone: RunResult) -> None:
    assert alone.text.strip() == ANSWER, alone.narration


@pytest.mark.parametrize(("mode", "lend"), [("split", "ffn"), ("split", "all"), ("strict", "layers")])
def test_nodes_compute_the_same_answer(swarm: Swarm, alone: RunResult, mode: str, lend: str) -> None:
    answer = swarm.run(QUESTION, ["--privacy", mode, "--lend", lend, *GREEDY])
    assert answer.token_ids == alone.token_ids, answer.narration
    assert answer.receipt["mode"] == mode and answer.receipt["chunks"]["verified"] > 0


def test_a_chat_of_several_turns_through_the_gateway(swarm: Swarm) -> None:
    """By the model's own template: what was said before is in the prompt, and counts as tokens."""
    messages = [{"role": "user", "content": "My name is Ada. Remember it."}]
    counts = []
    for question in ("What is my name?", "Spell it backwards.", "Thank you."):
        reply = _chat(swarm.nodes[0].gateway, messages)
        counts.append(reply["usage"]["prompt_tokens"])
        messages += [reply["choices"][0]["message"], {"role": "user", "content": question}]
    assert counts == sorted(counts) and counts[0] > 20, "every turn holds those before it"
    assert all(message["content"].strip() for message in messages)
    assert not any("<|im_" in message["content"] for message in messages), "the template's words are not text"


def test_a_chat_of_several_turns_on_the_command_line(swarm: Swarm) -> None:
    """By the node that runs, over the other one and a client's own; each line is a turn."""
    lines = "My name is Ada. Remember it.\nWhat is my name?\nThank you.\n"
    command = [*PROGRAM, "run", "--json", "--data-dir", str(swarm.nodes[0].data_dir), "--model", SMOLLM2]
    command += ["--temperature", "0", "--max-tokens", "24", "--privacy", "local"]
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=90, env=swarm.environment, check=True
    )
    receipts = [event for event in map(json.loads, done.stdout.splitlines()) if event["type"] == "receipt"]
    counts = [receipt["prompt_tokens"] for receipt in receipts]
    assert len(counts) == 3 and counts[0] + 24 < counts[1] < counts[2], "every turn holds those before it"


def test_a_chat_of_several_turns_in_the_interface(swarm: Swarm) -> None:
    async def scenario() -> None:
        app = KekahydeApp(NodeLauncher(swarm.nodes[0].data_dir, []))
        async with app.run_test(size=(100, 30)) as pilot:
            driver = Driver(app, pilot, GatewayTwin())
            counts = []
            for line in ("My name is Ada.", "What is my name?", "Thank you."):
                await driver.until(lambda: app.session.model)
                before = app.session.answer
                await driver.type(line)
                await driver.keys("enter")
                await driver.until(
                    lambda before=before: app.session.answer is not before and app.session.answer.tokens
                )
                await driver.keys("escape")
                await driver.until(lambda: app.session.answer.receipt)
                answer = app.session.answer
                assert answer is not None and answer.receipt is not None and answer.text.strip()
                counts.append(answer.receipt["prompt_tokens"])
            assert counts == sorted(set(counts)), "every turn holds those before it"

    asyncio.run(scenario())


def _chat(gateway: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    body = {"model": SMOLLM2, "messages": messages, "max_tokens": 24, "temperature": 0, "privacy": "local"}
    request = urllib.request.Request(
        f"{gateway}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(json.load(response))


def test_row_by_row_is_the_same_as_at_once(models: Path) -> None:
    model, kernels = Library(models).resolve(SMOLLM2), select_kernels(1)
    decoder = Decoder.of_units(model, kernels, LocalLinear(kernels))
    ids = model.tokenizer().encode("The fox went to the river and")
    at_once = decoder.forward(ids, decoder.new_cache(256))
    cache = decoder.new_cache(256)
    for token in ids:
        row = decoder.forward([token], cache)
    np.testing.assert_array_equal(at_once, row)
