"""What guessed tokens bring over a wire with delay: tokens a second with and without, on texts that repeat or not."""

from __future__ import annotations

from typing import Any

from scripts.networks.devices import Lab, LabError, invitation_of, must
from scripts.networks.weights import receipt_of

TEXTS = {
    "story": "Once upon a time there was a little fox who lived in a wood. One day",
    "repeats": "Tom likes red. Tom likes red. Tom likes red. Tom likes",
}
SAMPLING = (
    "--json",
    "--ignore-eos",
    "--max-tokens",
    "40",
    "--temperature",
    "0",
    "--privacy",
    "split",
    "--lend",
    "layers",
)
CHOICES = {
    "off": ("--speculate", "off"),
    "text": ("--speculate", "8"),
    "auto": ("--speculate", "auto"),
    "draft": ("--speculate", "8", "--draft", "story"),
    "auto_draft": ("--speculate", "auto", "--draft", "story"),
}
"""With the model as its own draft every guess is right: what a draft could bring at best."""
WARM_UP = "The first answer measures the peers."


def guessing(lab: Lab) -> dict[str, Any]:
    """A client with one lane, which asks for each text with and without guesses."""
    client, pads, shares = lab.devices
    pads.start("--no-mdns", model="story")
    line = invitation_of(pads)
    for device in (shares, client):
        must(device.call("join", line), "join")
    shares.start("--no-mdns", model="story")
    named = ("--bootstrap", pads.addresses[0], "--bootstrap", shares.addresses[0])
    client.start("--no-mdns", *named, model="story")
    receipt_of(client, WARM_UP, *SAMPLING)
    figures: dict[str, Any] = {}
    for name, text in TEXTS.items():
        texts = set()
        for choice, options in CHOICES.items():
            answer = receipt_of(client, text, *SAMPLING, *options)
            texts.add(answer["text"])
            if answer["mode"] != "split":
                raise LabError(f"no lane: {answer['note']}")
            told = answer["speculation"] or {"passes": answer["tokens"] - 1}
            figures[f"{name}_{choice}_tokens_a_s"] = answer["tokens_per_s"]
            figures[f"{name}_{choice}_passes"] = told["passes"]
        if len(texts) != 1:
            raise LabError(f"guesses changed the text: {texts}")
    return figures
