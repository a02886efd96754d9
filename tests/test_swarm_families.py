"""A model of each family over real processes: what `split` answers is what this device answers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_model_checkpoints import write_checkpoint
from test_model_decoder import FAMILIES

from scripts.harness.swarm import Swarm

pytestmark = pytest.mark.swarm

TOKENS = 8
SAMPLING = ["--ignore-eos", "--max-tokens", str(TOKENS), "--temperature", "0.9", "--seed", "5"]


ALWAYS = ("llama", "gemma3", "phi3", "smollm3")
"""The others are marked `long`."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.long])
        for name in FAMILIES
        if name not in ("llama-biases", "llama3", "yarn")
    ],
)
def test_split_gives_the_text_of_this_device(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", FAMILIES[name])
    with Swarm(model=str(folder)) as swarm:
        swarm.start(2)
        alone = swarm.run("Lion?", [*SAMPLING, "--privacy", "local"], alone=True)
        result = swarm.run("Lion?", [*SAMPLING, "--privacy", "split"])
    assert (alone.returncode, result.returncode) == (0, 0), alone.narration + result.narration
    assert len(result.token_ids) == TOKENS and result.token_ids == alone.token_ids
    assert len(set(alone.token_ids)) > 2, "a model that says one thing only would agree with anything"
    assert result.receipt["mode"] == "split" and result.receipt["chunks"]["rejected"] == 0
    assert result.receipt["chunks"]["verified"] > 0.7 * result.receipt["chunks"]["merged"]
