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
from swarm_harness import NodeProcess, RunResult, Swarm

SCENARIOS = ("none", "kill", "freeze", "slow", "lie")
VICTIMS = ("one", "lane", "all")

Blow = Callable[[NodeProcess], None]
COMPACT: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0)}
"""Tables that fit 80 columns."""


def faults_of(scenario: str, victims: list[int], at_token: int) -> dict[int, list[str]]:
    """Options of the nodes that are hostile from the start (they turn at about `at_token`)."""
    if scenario == "lie":
        return {index: ["--fault", "lie-bit", "--after", str(at_token)] for index in victims}
    if scenario == "slow":
        return {index: ["--fault", "slow", "--after", str(at_token), "--delay", "0.3"] for index in victims}
    return {}


def pick_victims(which: str, count: int) -> list[int]:
    """Indices of the nodes that suffer. A session pairs nodes in the order of its bootstrap addresses: 0 and 1 are
    the guards of the first lane."""
    return {"one": [1 % count], "lane": list(range(min(2, count))), "all": list(range(count))}[which]


@click.command()
@click.argument("prompt", default="Once upon a time")
@click.option("--nodes", type=click.IntRange(1, 32), default=4, show_default=True)
@click.option("--scenario", type=click.Choice(SCENARIOS), default="none", show_default=True)
@click.option("--victims", type=click.Choice(VICTIMS), default="one", show_default=True)
@click.option("--at-token", type=int, default=16, show_default=True, help="When it happens.")
@click.option("--max-tokens", type=int, default=64, show_default=True)
@click.option("--privacy", type=click.Choice(["auto", "split", "strict"]), default="split", show_default=True)
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
    chosen = pick_victims(victims, nodes)
    blows: dict[str, Blow] = {"kill": NodeProcess.kill, "freeze": NodeProcess.freeze}
    with Swarm(model=model) as swarm:
        console.print(f"starting {nodes} nodes ...")
        swarm.start(nodes, faults_of(scenario, chosen, at_token))

        def on_token(index: int) -> None:
            if index == at_token and scenario in blows:
                for victim in chosen:
                    blows[scenario](swarm.nodes[victim])

        remote = swarm.run(prompt, [*sampling, "--privacy", privacy], on_token)
        local = swarm.run(prompt, [*sampling, "--privacy", "local"], alone=True)
        if show_text:
            print(prompt + remote.text)
        report(console, remote, local, scenario)
        if remote.returncode or not remote.tokens or remote.token_ids != local.token_ids:
            console.print(f"the answers differ or the run failed (exit code {remote.returncode}): {remote.narration}")
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
    main()
