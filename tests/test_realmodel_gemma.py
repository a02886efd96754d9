"""Gemma 3 270M, a Q4_K_M file: imported, measured, and computed by nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_model_decoder import SHARED

from node.store.gguf.checkpoint import GgufCheckpoint
from node.store.library import Library
from scripts.benchmarks.perplexity import perplexities
from scripts.harness.real_models import GEMMA, NotFetchedError, gemma_gguf, gemma_models
from scripts.harness.swarm import Swarm

pytestmark = [pytest.mark.swarm, pytest.mark.realmodel]

PROMPT = "The capital of France is"
GREEDY = ["--temperature", "0", "--max-tokens", "12"]
NUM_WINDOWS = 2


@pytest.fixture(scope="module")
def models() -> Path:
    try:
        return gemma_models()
    except NotFetchedError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def swarm(models: Path) -> Iterator[Swarm]:
    with Swarm(model=GEMMA, models=models) as swarm:
        swarm.start(2)
        yield swarm


def test_the_float_model_is_that_of_transformers(models: Path) -> None:
    """Logits before quantization, of the same file."""
    import torch
    from transformers import AutoModelForCausalLM

    from node.store.hf.reference import ReferenceModel

    path = gemma_gguf()
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ids = Library(models).resolve(GEMMA).tokenizer().encode("Once upon a time there was a fox who")
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(
        ReferenceModel(GgufCheckpoint(path)).logits(ids), expected, atol=1e-4 * abs(expected).max()
    )


def test_the_integers_cost_less_than_a_percent(models: Path) -> None:
    texts = sorted((SHARED / "text" / "tinystories_samples").glob("*"))
    if not texts:
        pytest.skip("no text to read")
    text = texts[0].read_text(errors="ignore")[:20_000]
    in_float, in_integers = perplexities(gemma_gguf(), models, text, NUM_WINDOWS)
    print(f"perplexity {in_float:.3f} float, {in_integers:.3f} W8A12")
    assert in_float < 30 and abs(in_integers / in_float - 1) < 0.01


@pytest.mark.parametrize("lend", ["ffn", "all"])
def test_nodes_compute_the_same_answer(swarm: Swarm, lend: str) -> None:
    alone = swarm.run(PROMPT, ["--privacy", "local", *GREEDY], alone=True)
    assert "France" in alone.text, "it is no model for facts, but it speaks"
    answer = swarm.run(PROMPT, ["--privacy", "split", "--lend", lend, *GREEDY])
    assert answer.token_ids == alone.token_ids, answer.narration
    assert answer.receipt["mode"] == "split" and answer.receipt["chunks"]["verified"] > 0
