"""What peers receive is noise: short form of `scripts/privacy_audit`, with faults planted that must be caught."""

from __future__ import annotations

import pytest

from scripts.harness.swarm import Swarm
from scripts.privacy_lab import audit

pytestmark = pytest.mark.swarm

UNITS = 24
"""Of the built-in model, the head apart."""
PROMPT = "Once upon a time there was a secret that nobody else may read"


@pytest.mark.parametrize("mode", list(audit.NODES))
def test_peers_receive_noise(mode: str) -> None:
    with Swarm() as swarm:
        result, taps = audit.run_tapped(swarm, mode, PROMPT, 40)
    assert result.returncode == 0 and result.receipt["mode"] == mode.partition(",")[0]
    assert result.receipt["chunks"]["verified"] > 0
    for tapped in taps:
        assert audit.findings(tapped, PROMPT) == []
    seeds = sum(len(tapped.seeds) for tapped in taps)
    assert (seeds > 0) == (mode != "strict")
    shares = [tapped for tapped in taps if tapped.rows]
    assert shares, "somebody got shares"
    if mode == audit.PAIRED:
        assert taps[0].seeds and not taps[0].rows, "the paired device gets seeds alone"
        assert shares == [taps[1]] and not taps[1].seeds
        assert result.receipt["pads"]["paired_rows"] > 0
    assert audit.planted_faults_missed(shares[0]) == []


@pytest.mark.parametrize("words", [17, 29])
def test_a_prompt_shows_its_bucket_and_no_more(words: int) -> None:
    """Prompts of other lengths in one bucket: peers together get as many rows of each unit, 32."""
    prompt = " ".join((PROMPT.split() * 3)[:words])
    with Swarm() as swarm:
        result, taps = audit.run_tapped(swarm, "strict", prompt, 1)
    assert result.returncode == 0, result.narration
    assert 16 < result.receipt["prompt_tokens"] <= 32
    assert sum(len(rows) for tapped in taps for rows in tapped.rows) == 32 * UNITS
