"""`scripts/guards`: what one slow, faulty or noisy guard costs an answer, in each role, beside this device alone.

Each line is a swarm of its own: the guard that misbehaves, and an honest one where the mode needs two. A run that is
not over in time is ended, and counts with the tokens that it made. Exit code 0 only if every token that came is that
of this device alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.table import Table

from scripts.harness.swarm import RunResult, Swarm
from scripts.scenarios.swarm import COMPACT

PROMPT = "Once upon a time, there was a little fox who"
FAULTS: dict[str, list[str]] = {
    "none": ["--fault", "none"],
    "late 0.04 s": ["--fault", "slow", "--delay", "0.04"],
    "late 0.3 s": ["--fault", "slow", "--delay", "0.3"],
    "late 0.9 s": ["--fault", "slow", "--delay", "0.9"],
    "2 ms later each time": ["--fault", "later", "--delay", "0.002"],
    "ERROR 13 to everything": ["--fault", "error-13"],
    "20 junk results first": ["--fault", "junk"],
    "far: 0.08 s, pings too": ["--fault", "slow", "--delay", "0.08", "--pong-delay", "0.08"],
    "late 0.3 s, pings too": ["--fault", "slow", "--delay", "0.3", "--pong-delay", "0.3"],
}
PLACES: dict[str, tuple[str, list[int], set[int]]] = {
    "split, A (pads)": ("split", [0, 1], {0}),
    "split, B (shares)": ("split", [1, 0], {0}),
    "split, both": ("split", [0, 1], {0, 1}),
    "strict, the only one": ("strict", [0], {0}),
    "strict, both": ("strict", [0, 1], {0, 1}),
    "strict, one of two": ("strict", [0, 1], {0}),
}
"""Mode, which nodes the run is told of in which order, and which of them misbehave."""


@dataclass(slots=True)
class TimedRun:
    """A run, and how long its process lived."""

    result: RunResult
    wall_s: float

    @property
    def over(self) -> bool:
        """Whether it came to its end."""
        return bool(self.result.receipt)

    @property
    def seconds(self) -> float:
        """From the prompt to the last token; of a run that was ended, as long as it lived."""
        receipt = self.result.receipt
        if not receipt:
            return self.wall_s
        tokens = int(receipt["tokens"])
        return float(receipt["ttft_s"]) + ((tokens - 1) / float(receipt["tokens_per_s"]) if tokens > 1 else 0.0)


def timed(swarm: Swarm, options: Sequence[str], limit_s: float, peers: Sequence[int] | None) -> TimedRun:
    """Run the prompt; ended after `limit_s` seconds."""
    started = time.monotonic()
    result = swarm.run(PROMPT, options, alone=peers is None, peers=peers, limit_s=limit_s)
    return TimedRun(result, time.monotonic() - started)


def chosen(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those whose name holds one of the words; all where there is no word."""
    return [name for name in known if not names or any(word in name for word in names)]


@click.command()
@click.option("--tokens", type=click.IntRange(2), default=30, show_default=True)
@click.option("--limit", type=float, default=60.0, show_default=True, help="Seconds after which a run is ended.")
@click.option("--fault", "faults", multiple=True, help="Only faults whose name holds this. May be repeated.")
@click.option("--place", "places", multiple=True, help="Only places whose name holds this. May be repeated.")
@click.option("--pings", is_flag=True, help="Also guards that answer pings late.")
def main(tokens: int, limit: float, faults: tuple[str, ...], places: tuple[str, ...], pings: bool) -> None:
    """Print the table."""
    console = Console(stderr=True, highlight=False)
    sampling = ["--ignore-eos", "--max-tokens", str(tokens), "--temperature", "0.8", "--seed", "11"]
    table = Table(**COMPACT)
    for heading in ("guard", "where", "tokens", "seconds", "x local", "by peers", "hedged", "here", "same text"):
        table.add_column(heading, justify="left" if heading in ("guard", "where") else "right")
    with Swarm() as swarm:
        alone = timed(swarm, [*sampling, "--privacy", "local"], limit, None)
    table.add_row("(local)", "", str(len(alone.result.tokens)), f"{alone.seconds:.2f}", "1", "", "", "", "yes")
    wrong = 0
    for fault in chosen(faults, [name for name in FAULTS if pings or "pings" not in name]):
        for place in chosen(places, list(PLACES)):
            run = _one(fault, place, sampling, limit)
            same = run.result.token_ids == alone.result.token_ids[: len(run.result.tokens)]
            wrong += not same
            row = _row(run, alone)
            console.print(f"{fault}, {place}: {row[1]} s for {row[0]} tokens")
            table.add_row(fault, place, *row, "yes" if same else "NO")
    Console(highlight=False).print(table)
    sys.exit(1 if wrong else 0)


def _one(fault: str, place: str, sampling: Sequence[str], limit_s: float) -> TimedRun:
    mode, order, faulty = PLACES[place]
    with Swarm() as swarm:
        swarm.start(len(order), {index: FAULTS[fault] for index in faulty})
        return timed(swarm, [*sampling, "--privacy", mode], limit_s, order)


def _row(run: TimedRun, alone: TimedRun) -> list[str]:
    chunks = run.result.receipt.get("chunks", {})
    counts = [str(chunks.get(key, "")) for key in ("verified", "hedged", "local")]
    each, each_alone = (timing.seconds / max(len(timing.result.tokens), 1) for timing in (run, alone))
    more = "" if run.over else "> "
    return [str(len(run.result.tokens)), f"{more}{run.seconds:.2f}", f"{each / each_alone:.0f}", *counts]


if __name__ == "__main__":
    main(prog_name="scripts/guards")
