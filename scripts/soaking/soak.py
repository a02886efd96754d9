"""`scripts/soak`: random faults over a swarm of real processes, for an hour, with a client that answers all the time.

Every answer must be the text that the client computes alone; the memory and the descriptors of the client, and of a
peer that lives through it all, must come to rest. Exit code 0 only if all of that holds.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import click

from node.gateway.client.client import call_node
from scripts.harness.honest_client import PROMPT, DifferentAnswerError, HonestClient
from scripts.harness.owner import pair
from scripts.harness.swarm import NodeProcess, Swarm
from scripts.soaking.faults import FaultDealer
from scripts.soaking.watch import ProcessWatch

PEERS = 5
SLOW = {PEERS - 1: ["--fault", "slow", "--delay", "0.03"]}
"""The last peer is late in every answer, from the beginning to the end."""
PROMPTS = [PROMPT, "The cat sat on", "One day a fox met " * 8, "A dog and a bird"]
MODES = ("split", "strict", "split", "auto", "local", "trusted")
OWN = 2
"""So many of the peers to which faults happen are devices of the client's owner, and may read prompts."""
STREAMS = 4
"""Requests at once while the gateway is under load; every second hangs up in the middle."""
LOAD_EVERY = 5
"""One turn of so many is such a load."""
MAX_GROWTH = 0.25
"""Share of its memory by which a process may grow in an hour, as the last half tells."""
MAX_DESCRIPTORS = 0.5
"""Descriptors a minute; over half an hour this is less than the swing between two faults."""
MAX_THREADS = 0.2
"""Threads a minute."""

REFUSED_PAUSE_S = 0.5
MAX_TRACEBACK_CHARACTERS = 4000


@dataclass(slots=True)
class Asked:
    """What became of the questions."""

    answers: int = 0
    cancelled: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    verified: int = 0
    """Chunks whose results were verified before they were used."""
    rejected: int = 0
    """Results that were refused."""


class Asker:
    """Asks the client's gateway all the time; one thread of its own, a few beside it under load."""

    def __init__(self, client: NodeProcess, seed: int) -> None:
        self._client = HonestClient(client)
        self._random = random.Random(seed)
        self.asked = Asked()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._main, name="asker")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _main(self) -> None:
        turn = 0
        while not self._ending.is_set():
            turn += 1
            if turn % LOAD_EVERY:
                self._ask(self._random.choice(MODES), self._random.choice(PROMPTS))
            else:
                self._load()

    def _load(self) -> None:
        wanted = [(self._random.choice(MODES), prompt, i % 2) for i, prompt in enumerate(PROMPTS[:STREAMS])]
        with ThreadPoolExecutor(len(wanted)) as askers:
            for mode, prompt, leaves in wanted:
                askers.submit(self._leave if leaves else self._ask, mode, prompt)

    def _ask(self, mode: str, prompt: str) -> None:
        try:
            self._count(self._client.ask(mode, prompt).receipt)
        except DifferentAnswerError as exc:
            self.asked.wrong.append(str(exc))
        except OSError as exc:
            self.asked.refused[str(exc)[:200]] += 1
            self._ending.wait(REFUSED_PAUSE_S)

    def _count(self, receipt: dict[str, Any]) -> None:
        """What was used was verified, or computed here: the one invariant of all receipts."""
        chunks, asked = receipt["chunks"], self.asked
        asked.answers, asked.verified = asked.answers + 1, asked.verified + chunks["verified"]
        asked.rejected += chunks["rejected"]
        if chunks["merged"] != chunks["verified"] + chunks["local"]:
            asked.wrong.append(f"used without a check: {chunks}")

    def _leave(self, mode: str, prompt: str) -> None:
        with suppress(OSError):
            self._client.ask_and_leave(mode, 1 + self._random.randrange(12), prompt)
            self.asked.cancelled += 1


def verdict(watches: dict[str, ProcessWatch], asked: Asked, minutes: float) -> list[str]:
    """What is wrong; empty where the soak passed."""
    faults = [f"another text: {text}" for text in asked.wrong[:3]]
    faults += [f"no answer ({count}): {why}" for why, count in asked.refused.items()]
    if not asked.answers:
        faults.append("there was no answer at all")
    for name, watch in watches.items():
        last = watch.samples[-1]
        if minutes < 10:
            continue
        if watch.memory.exceeds(MAX_GROWTH * last.resident_mib / 60):
            faults.append(f"the {name} grows by {watch.memory} MiB a minute")
        if watch.descriptors.exceeds(MAX_DESCRIPTORS):
            faults.append(f"the {name} opens {watch.descriptors} descriptors a minute")
        if watch.threads.exceeds(MAX_THREADS):
            faults.append(f"the {name} starts {watch.threads} threads a minute")
    return faults


def last_traceback(narration: str) -> str:
    """What a node said of the last exception that it did not expect; its last lines where there was none."""
    before, _, after = narration.rpartition("Traceback (most recent call last)")
    return after[:MAX_TRACEBACK_CHARACTERS] if before else narration[-MAX_TRACEBACK_CHARACTERS:]


def soak(minutes: float, every_s: float, seed: int, say: bool = True) -> tuple[list[str], Asked, Counter[str]]:
    """Run it; what was wrong, what was asked, what was dealt."""
    with Swarm() as swarm:
        swarm.start(PEERS - 1)
        swarm.start(1, {0: SLOW[PEERS - 1]}, ["--bootstrap", swarm.nodes[0].address])
        swarm.start(1, options=swarm.bootstrap())
        client, steady = swarm.nodes[-1], swarm.nodes[0]
        victims = swarm.nodes[1 : PEERS - 1]
        for own in victims[:OWN]:
            pair(client, own)
        asker, dealer = Asker(client, seed), FaultDealer(swarm, client, victims, seed)
        watches = {"client": ProcessWatch(client), "peer": ProcessWatch(steady)}
        asker.start()
        try:
            _watch(watches, dealer, minutes, every_s, say, asker.asked, [client, steady])
        finally:
            asker.stop()
        faults = verdict(watches, asker.asked, minutes) + dealer.ended + _after_it(swarm, client)
        if say:
            for name, watch in watches.items():
                click.echo(f"the last half, {name}: {watch}")
        if asker.asked.refused:
            faults.append(f"the client's log: {last_traceback(client.narration())}")
        return faults, asker.asked, dealer.dealt


def _after_it(swarm: Swarm, client: NodeProcess) -> list[str]:
    """What the client has lost on its disk, as its next start shows; empty for nothing."""
    before = client.peer_id, call_node(client.data_dir, "pair_list")["devices"]
    swarm.restart(client)
    after = client.peer_id, call_node(client.data_dir, "pair_list")["devices"]
    if [device["peer_id"] for device in before[1]] != [device["peer_id"] for device in after[1]]:
        return [f"its paired devices were {before[1]} and are {after[1]}"]
    return [] if before[0] == after[0] else [f"it was {before[0]} and is {after[0]}"]


def _watch(
    watches: dict[str, ProcessWatch],
    dealer: FaultDealer,
    minutes: float,
    every_s: float,
    say: bool,
    asked: Asked,
    living: Sequence[NodeProcess],
) -> None:
    """Deal faults and look at the processes until the time is over, or one of them is gone."""
    started = time.monotonic()
    next_look, next_fault = started, started
    if say:
        click.echo("| minute | client MiB | descriptors | threads | peer MiB | descriptors | threads | answers |")
        click.echo("|---|---|---|---|---|---|---|---|")
    while (now := time.monotonic()) < started + 60 * minutes and all(node.process.poll() is None for node in living):
        if now >= next_look:
            next_look += every_s
            samples = [watch.look() for watch in watches.values()]
            cells = [f"{s.resident_mib:.0f} | {s.descriptors} | {s.threads}" for s in samples]
            if say:
                click.echo(f"| {(now - started) / 60:.1f} | {' | '.join(cells)} | {asked.answers} |")
        if now >= next_fault:
            dealer.deal()
            next_fault = time.monotonic() + dealer.pause_s()
        time.sleep(max(0.0, min(next_look, next_fault) - time.monotonic()))
    for node in living:
        if node.process.poll() is not None:
            asked.wrong.append(f"{node.data_dir.name} ended with {node.process.poll()}")


@click.command()
@click.option("--minutes", type=click.FloatRange(0.1, 600), default=60.0, show_default=True)
@click.option("--every", "every_s", type=click.FloatRange(1, 600), default=30.0, show_default=True, help="Seconds.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed deals the same faults.")
def main(minutes: float, every_s: float, seed: int) -> None:
    """Soak a swarm, and say whether it came to rest."""
    faults, asked, dealt = soak(minutes, every_s, seed)
    given = ", ".join(f"{count} x {name}" for name, count in sorted(dealt.items()))
    click.echo(f"\n{asked.answers} answers, {asked.cancelled} hung up on; seed {seed}; faults: {given}")
    click.echo(f"{asked.verified} results were verified and used, {asked.rejected} refused")
    for fault in faults:
        click.echo(f"FAILED: {fault}")
    if not faults:
        click.echo("passed: every answer identical, memory and descriptors at rest")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(prog_name="scripts/soak")
