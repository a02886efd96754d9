"""A wire that changes all the time, partitions, and devices that die or freeze, while a client asks.

Every answer must be complete and the text that the client computes alone. The seed of the network draws the weather
and the faults, so that they can be dealt again.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from node.errors import KekahydeError
from node.gateway.client.generating import generate_on_node
from scripts.networks.devices import Device, Lab, LabError, invitation_of, must
from scripts.networks.switch import CALM, Wire

PROMPTS = ("Once upon a time there was a fox", "The cat sat on", "One day a bird met a dog. " * 4)
MODES = ("split", "strict", "auto", "split", "local")
TOKENS = 8
WEATHER = {
    "calm": CALM,
    "far": Wire(delay_s=0.08),
    "lossy": Wire(delay_s=0.005, loss=0.03),
    "reordering": Wire(delay_s=0.01, jitter_s=0.02),
    "narrow": Wire(delay_s=0.005, bytes_per_s=1.5e6),
    "bad": Wire(delay_s=0.04, loss=0.02, jitter_s=0.03, bytes_per_s=3e6),
}
LASTS_S = (4.0, 10.0)
"""How long each weather and each fault lasts."""


class Asker:
    """Asks the client all the time, in a thread of its own."""

    def __init__(self, client: Device, seed: int) -> None:
        self._client, self._random = client, random.Random(seed)
        self._alone: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._main, name="asker")

    def start(self) -> None:
        for prompt in PROMPTS:
            self._alone[prompt] = self._answer(prompt, "local")["text"]
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _main(self) -> None:
        while not self._ending.is_set():
            prompt, mode = self._random.choice(PROMPTS), self._random.choice(MODES)
            try:
                receipt = self._answer(prompt, mode)
            except KekahydeError as exc:
                self.wrong.append(f"{mode}: no answer: {exc}")
                continue
            chunks = receipt["chunks"]
            self.counts += Counter(answers=1, verified=chunks["verified"], here=chunks["local"])
            if receipt["text"] != self._alone[prompt]:
                self.wrong.append(f"{mode}: {receipt['text']!r} instead of {self._alone[prompt]!r}")
            if chunks["merged"] != chunks["verified"] + chunks["local"]:
                self.wrong.append(f"{mode}: used without a check: {chunks}")

    def _answer(self, prompt: str, mode: str) -> dict[str, Any]:
        asked = {"prompt": prompt, "model": "story", "privacy": mode, "max_tokens": TOKENS, "seed": 3}
        *_, last = generate_on_node(self._client.data_dir, **asked, temperature=0.8, ignore_eos=True)
        receipt: dict[str, Any] = last["receipt"]
        return receipt


def weather(lab: Lab) -> dict[str, Any]:
    """A client with two lanes. Raises LabError for an answer that is wrong or does not come."""
    client, *others = lab.devices
    others[0].start("--no-mdns", model="story")
    line = invitation_of(others[0])
    for device in (*others[1:], client):
        must(device.call("join", line), "join")
    for device in others[1:]:
        device.start("--no-mdns", model="story")
    named = [part for device in others for part in ("--bootstrap", device.addresses[0])]
    client.start("--no-mdns", *named, model="story")
    dice, asker, dealt = random.Random(lab.network.seed), Asker(client, lab.network.seed), Counter[str]()
    asker.start()
    try:
        until = time.monotonic() + 60 * lab.minutes
        while time.monotonic() < until and not asker.wrong:
            dealt[_deal(lab, dice, others, named)] += 1
    finally:
        lab.network.wire(CALM)
        asker.stop()
    if asker.wrong:
        raise LabError("; ".join(asker.wrong[:3]))
    return {**asker.counts, **{f"{what}_dealt": count for what, count in sorted(dealt.items())}}


def _deal(lab: Lab, dice: random.Random, others: list[Device], named: list[str]) -> str:
    """One change, which lasts for a while; returns what it was."""
    lasts_s, victim = dice.uniform(*LASTS_S), dice.choice(others)
    match dice.choice([*WEATHER, "partition", "kill", "freeze"]):
        case "partition" as what:
            lab.network.partition([device.index for device in dice.sample(others, dice.randint(1, len(others)))])
            time.sleep(lasts_s)
            lab.network.heal()
        case "kill" as what:
            victim.kill()
            time.sleep(lasts_s / 2)
            victim.start("--no-mdns", *named, model="story")
        case "freeze" as what:
            assert victim.process is not None, "it runs"
            victim.process.send_signal(signal.SIGSTOP)
            time.sleep(lasts_s)
            with suppress(ProcessLookupError):
                victim.process.send_signal(signal.SIGCONT)
        case what:
            lab.network.wire(WEATHER[what])
            time.sleep(lasts_s)
    return str(what)
