"""What the user's own devices bring over a wire with delay: tokens a second against the prediction, and the text."""

from __future__ import annotations

from functools import partial
from typing import Any

from scripts.harness.owner import pair
from scripts.networks.devices import Device, Lab, LabError, invitation_of, must, wait
from scripts.networks.weights import receipt_of

TEXT = "Once upon a time there was a little fox who lived in a wood. One day"
SAMPLING = ("--json", "--ignore-eos", "--max-tokens", "40", "--temperature", "0")
WAIT_S = 60.0
LAYERS = 6
"""Of the built-in model."""
ANSWERS = 4
"""The first answers measure the devices."""


def held(client: Device, device: Device, model_id: str) -> set[int]:
    """Layers of the model that the client knows a device to hold; none without a link."""
    if not client.sees(device):
        return set()
    runs = [run.split("-") for run in client.peers()[device.peer_id]["holds"].get(model_id, "").split(",") if run]
    return {layer for run in runs for layer in range(int(run[0]), int(run[-1]) + 1)}


def _holds_some(client: Device, device: Device, model_id: str) -> bool:
    return bool(held(client, device, model_id))


def own_devices(lab: Lab) -> dict[str, Any]:
    """A client with all layers, and two devices of its owner, of which each holds some of them."""
    client, *devices = lab.devices
    client.start("--no-mdns", model="story")
    line = invitation_of(client)
    alone = receipt_of(client, TEXT, *SAMPLING, "--privacy", "local")
    model_id, size = alone["model_id"], alone["memory"]["weights_here_bytes"]
    for device in devices:
        must(device.call("join", line), "join")
        device.start("--no-mdns", "--memory", str(int(0.62 * size)), model=model_id)
        # The next one holds what this one does not: it must be known by then.
        wait(partial(_holds_some, client, device, model_id), WAIT_S, f"device {device.index} holds nothing")
        pair(client, device)
        floats = device.data_dir / "models" / ".partial" / model_id / "client.safetensors"
        wait(floats.exists, WAIT_S, "a paired device does not fetch the norms")
    wait(
        lambda: set(range(LAYERS)) <= set[int]().union(*(held(client, device, model_id) for device in devices)),
        WAIT_S,
        "some layers are on no device",
    )
    figures: dict[str, Any] = {}
    for number in range(ANSWERS):
        answer = receipt_of(client, TEXT, *SAMPLING, "--privacy", "trusted")
        if answer["text"] != alone["text"]:
            raise LabError("own devices changed the text")
        if not answer["spans"] or any(span["peer_id"] is None for span in answer["spans"]):
            raise LabError(f"not all layers went through devices: {answer['spans']}, {answer['note']}")
        said, was = answer["plan"]["tokens_per_s"], answer["tokens_per_s"]
        figures[f"answer_{number + 1}_said_tokens_a_s"] = round(said, 2)
        figures[f"answer_{number + 1}_tokens_a_s"] = round(was, 2)
        figures["spans"] = len(answer["spans"])
        figures["steps_straight_to_the_next"] = sum(span["direct"] for span in answer["spans"])
    return figures
