"""What lending costs over a wire that carries only so much: said by the planner, and seen."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from scripts.harness.random_model import SHAPES, write_random_model
from scripts.networks.devices import Device, Lab, LabError, invitation_of, must, wait
from scripts.networks.own_devices import held
from scripts.networks.weights import receipt_of

SHAPE = "135m"
PROMPT_TOKENS = 128
"""Long enough for waves: what this device and its peers do at the same time is part of the prediction."""
SAMPLING = ("--json", "--ignore-eos", "--max-tokens", "9", "--temperature", "0", "--speculate", "off")
PLACEMENTS = ("ffn", "layers")
ROUNDS = 3
"""Before the first answer nothing is measured but pings; the others are predicted from what was."""
WAIT_S = 60.0


def bandwidth(lab: Lab) -> dict[str, Any]:
    """A thin client lends to one lane: a long prompt and some tokens, said and seen."""
    client, pads, shares = lab.devices
    with tempfile.TemporaryDirectory(prefix="kekahyde-bandwidth-") as folder:
        model_id = write_random_model(SHAPE, Path(folder) / "made", Path(folder) / "models")
        model = str(Path(folder) / "models" / model_id)
        pads.start("--no-mdns", model=model)
        line = invitation_of(pads)
        for device in (shares, client):
            must(device.call("join", line), "join")
        shares.start("--no-mdns", model=model)
        named = ("--bootstrap", pads.addresses[0], "--bootstrap", shares.addresses[0])
        client.start("--no-mdns", *named, "--memory", "1KiB")  # no layer to serve, no weights to borrow
        lab.wait_mesh(lab.devices, time.monotonic())
        for device in (pads, shares):
            wait(partial(_holds_all, client, device, model_id), WAIT_S, f"device {device.index} holds nothing")
        must(client.call("pull", model_id, "--thin", "--lend", "ffn"), "pull")
        figures: dict[str, Any] = {}
        for lend in PLACEMENTS:
            for number in range(1, ROUNDS + 1):
                options = ("--model", model_id, "--privacy", "split", "--lend", lend)
                figures |= _asked(client, prompt_of(len(figures)), f"{lend}_{number}", *options)
    return figures


def prompt_of(first: int) -> str:
    """A prompt whose first token is another each time: nothing of it is cached."""
    return " ".join(f"w{(first + 7 * number) % 256}" for number in range(PROMPT_TOKENS))


def _holds_all(client: Device, device: Device, model_id: str) -> bool:
    return held(client, device, model_id) >= set(range(SHAPES[SHAPE]["num_hidden_layers"]))


def _asked(client: Device, prompt: str, name: str, *options: str) -> dict[str, Any]:
    answer = receipt_of(client, prompt, *SAMPLING, *options)
    if answer["mode"] != "split" or answer["cached_tokens"] or answer["prompt_tokens"] != PROMPT_TOKENS:
        raise LabError(f"{name} is not what was asked for: {answer}")
    said = answer["plan"]
    return {
        f"{name}_ttft_said_s": said["ttft_s"],
        f"{name}_ttft_seen_s": answer["ttft_s"],
        f"{name}_ttft_error": said["ttft_s"] / answer["ttft_s"] - 1,
        f"{name}_token_said_s": 1 / said["tokens_per_s"],
        f"{name}_token_seen_s": 1 / answer["tokens_per_s"],
        f"{name}_token_error": answer["tokens_per_s"] / said["tokens_per_s"] - 1,
    }
