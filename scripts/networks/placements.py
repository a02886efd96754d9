"""What each placement costs over a wire with delay: said by the planner, and seen; the same text in all of them."""

from __future__ import annotations

from typing import Any

from scripts.networks.devices import Lab, LabError, invitation_of, must
from scripts.networks.weights import receipt_of

PROMPT = "Once upon a time"
SAMPLING = ("--ignore-eos", "--max-tokens", "16", "--temperature", "0", "--seed", "1", "--speculate", "off")
PLACEMENTS = ("ffn", "layers", "all")
ROUNDS = 4
"""Answers of each placement; the last is looked at, when the planner has learned of the others."""


def placements(lab: Lab) -> dict[str, Any]:
    """A thin client lends to one lane, more of the model each time; it has nobody else, so it is patient."""
    client, pads, shares = lab.devices
    pads.start("--no-mdns", model="story")
    line = invitation_of(pads)
    for device in (shares, client):
        must(device.call("join", line), "join")
    shares.start("--no-mdns", model="story")
    named = ("--bootstrap", pads.addresses[0], "--bootstrap", shares.addresses[0])
    client.start("--no-mdns", *named, "--memory", "1KiB")  # no layer to serve, no weights to borrow
    local = receipt_of(pads, PROMPT, "--json", "--model", "story", *SAMPLING, "--privacy", "local")
    common = ("--json", "--model", local["model_id"], *SAMPLING)
    must(client.call("pull", local["model_id"], "--thin", "--lend", "ffn"), "pull")
    figures: dict[str, Any] = {}
    for lend in PLACEMENTS:
        for _ in range(ROUNDS):
            answer = receipt_of(client, PROMPT, *common, "--privacy", "split", "--lend", lend)
            if answer["text"] != local["text"] or answer["mode"] != "split":
                raise LabError(f"the answer with {lend} lent is another: {answer}")
        said, plan = 1 / answer["plan"]["tokens_per_s"], answer["plan"]
        seen = 1 / answer["tokens_per_s"]
        figures |= {
            f"{lend}_said_s_a_token": said,
            f"{lend}_seen_s_a_token": seen,
            f"{lend}_error": said / seen - 1,
            f"{lend}_said_bytes_a_token": plan["bytes_per_token"],
            f"{lend}_seen_bytes_a_row": sum(answer["bytes"].values()) / (answer["tokens"] + answer["prompt_tokens"]),
        }
    return figures
