"""`scripts/swarm`: start N nodes, let something happen to them in the middle of an answer, compare with a local run.

Exit code 0 only if the answer of the swarm is, token by token, that of this device alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from scripts.harness.swarm import LaneWatch, NodeProcess, RunResult, StartError, Swarm

SCENARIOS = ("none", "kill", "freeze", "slow", "lie")
VICTIMS = ("one", "lane", "all")

BLOWS: dict[str, Callable[[NodeProcess], None]] = {"kill": NodeProcess.kill, "freeze": NodeProcess.freeze}
COMPACT: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0)}
"""Tables that fit 80 columns."""


WATCHED_TOKENS = 8
"""Tokens before the blow over which the lanes' work is compared."""


def faults_of(scenario: str, victims: str, count: int, at_token: int) -> dict[int, list[str]]:
    """Options of the nodes that are hostile from the start; they turn after so many answers."""
    faults = {
        "lie": ["--fault", "lie-bit", "--after", str(at_token)],
        "slow": ["--fault", "slow", "--after", str(at_token), "--delay", "0.3"],
    }
    if scenario not in faults:
        return {}
    chosen = {"one": [1 % count], "lane": [0, 1 % count], "all": range(count)}[victims]
    return {index: faults[scenario] for index in chosen}


class Blow:
    """Deals a blow to the lane that is at work (or to one of its nodes, or to all) when a token comes."""

    def __init__(self, swarm: Swarm, scenario: str, victims: str, at_token: int) -> None:
        self._swarm, self._scenario, self._victims, self._at_token = swarm, scenario, victims, at_token
        self._watch: LaneWatch | None = None

    def __call__(self, index: int) -> None:
        if self._scenario not in BLOWS:
            return
        if index == max(0, self._at_token - WATCHED_TOKENS):
            self._watch = LaneWatch(self._swarm.nodes)
        if index == self._at_token:
            for victim in self._chosen():
                BLOWS[self._scenario](self._swarm.nodes[victim])

    def _chosen(self) -> list[int]:
        count = len(self._swarm.nodes)
        if self._victims == "all" or count < 2 or self._watch is None:
            return list(range(count))
        pad, share = self._watch.busiest()
        return [share] if self._victims == "one" else [pad, share]


def happened(remote: RunResult, scenario: str) -> bool:
    """Whether the scenario left its mark on the run."""
    if scenario == "none":
        return True
    chunks = remote.receipt.get("chunks", {})
    marked = any(peer["status"] != "active" and peer["chunks"] for peer in remote.receipt.get("peers", []))
    return marked or chunks.get("local", 0) + chunks.get("rejected", 0) > 0


@click.command()
@click.argument("prompt", default="Once upon a time")
@click.option("--nodes", type=click.IntRange(1, 32), default=4, show_default=True)
@click.option("--scenario", type=click.Choice(SCENARIOS), default="none", show_default=True)
@click.option("--victims", type=click.Choice(VICTIMS), default="one", show_default=True)
@click.option("--at-token", type=int, default=16, show_default=True, help="When it happens.")
@click.option("--max-tokens", type=int, default=64, show_default=True)
@click.option("--privacy", type=click.Choice(["auto", "split", "strict"]), default="split", show_default=True)
@click.option("--lend", type=click.Choice(["auto", "ffn", "layers", "all"]), default="layers", show_default=True)
@click.option("--model", default="story", show_default=True)
@click.option("--temperature", type=float, default=0.8, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--show-text/--no-show-text", default=True)
def main(
    prompt: str,
    nodes: int,
    scenario: str,
    victims: str,
    at_token: int,
    max_tokens: int,
    privacy: str,
    lend: str,
    model: str,
    temperature: float,
    seed: int,
    show_text: bool,
) -> None:
    """Run PROMPT on a swarm of real processes and compare the answer with a local run."""
    console = Console(stderr=True, highlight=False)
    sampling = [
        "--ignore-eos",
        "--max-tokens",
        str(max_tokens),
        "--temperature",
        str(temperature),
        "--seed",
        str(seed),
    ]
    if at_token >= max_tokens:
        raise click.UsageError(f"--at-token {at_token} never comes with --max-tokens {max_tokens}")
    with Swarm(model=model) as swarm:
        console.print(f"starting {nodes} nodes ...")
        faults = faults_of(scenario, victims, nodes, at_token)
        try:
            swarm.start(nodes, faults)
        except StartError as exc:
            raise click.ClickException(str(exc)) from exc
        lanes = ["--lanes", "1"] if faults else []  # hostile nodes are in the first lane: it is to be used
        blow = Blow(swarm, scenario, victims, at_token)
        remote = swarm.run(prompt, [*sampling, *lanes, "--privacy", privacy, "--lend", lend], blow)
        local = swarm.run(prompt, [*sampling, "--privacy", "local"], alone=True)
        if show_text:
            print(prompt + remote.text)
        report(console, remote, local, scenario)
        if remote.returncode or not remote.tokens or remote.token_ids != local.token_ids:
            console.print(f"the answers differ or the run failed (exit code {remote.returncode}): {remote.narration}")
            sys.exit(1)
        if not happened(remote, scenario):
            console.print(f"nothing happened: no peer was in use when {scenario} was due (try --at-token, --nodes)")
            sys.exit(1)


def report(console: Console, remote: RunResult, local: RunResult, scenario: str) -> None:
    """Two tables: the runs side by side, and who did what."""
    runs = Table(title=f"scenario: {scenario}", title_justify="left", **COMPACT)
    runs.add_column("run", no_wrap=True)
    for heading in ("tokens", "tok/s", "TTFT s", "sent", "verified", "rejected", "hedged", "local", "same"):
        runs.add_column(heading, justify="right", no_wrap=True)
    for name, result in (("swarm", remote), ("alone", local)):
        receipt = result.receipt
        if receipt:
            chunks = receipt["chunks"]
            counts = [str(chunks[key]) for key in ("sent", "verified", "rejected", "hedged", "local")]
            same = "yes" if result.token_ids == local.token_ids else "NO"
            figures = [str(receipt["tokens"]), f"{receipt['tokens_per_s']:.1f}", f"{receipt['ttft_s']:.3f}"]
            runs.add_row(f"{name}, {receipt['mode']}", *figures, *counts, same)
    console.print(runs)
    peers = Table(**COMPACT)
    for heading in ("peer", "role", "requests", "rejected", "at the end"):
        peers.add_column(heading)
    for peer in remote.receipt.get("peers", []):
        row = (f"{peer['peer_id'][:24]}…", peer["role"], str(peer["chunks"]), str(peer["rejected"]), peer["status"])
        peers.add_row(*row)
    console.print(peers)


if __name__ == "__main__":
    main(prog_name="scripts/swarm")
