"""`scripts/bench swarm`: one client with 2 and with 4 peers on this machine; speed by mode, and where the time goes.

Modes are run in turn, round after round, so that a drift of the machine's speed hits all of them alike; the median
is printed. All processes share this machine's cores and its loopback: a real network adds its round trips.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
import psutil
from nacl.secret import SecretBox
from nacl.utils import random
from rich import box
from rich.console import Console
from rich.table import Table

from scripts.harness.random_model import SHAPES, made_models
from scripts.harness.swarm import Swarm

PROMPT = "Once upon a time, there was a little girl named Lily. She loved to play outside with her dog. One day they"
PARTS: dict[str, Callable[[dict[str, float]], float]] = {
    "network, waiting": lambda t: t.get("wait", 0.0) - t.get("peers", 0.0),
    "peers' kernels": lambda t: t.get("peers", 0.0),
    "encode and send": lambda t: t.get("send", 0.0),
    "pads": lambda t: t.get("pads", 0.0),
    "share and merge": lambda t: t.get("share", 0.0) + t.get("merge", 0.0),
    "verify": lambda t: t.get("verify", 0.0),
    "linear layers here": lambda t: t.get("local", 0.0),
}
"""Where the session's thread spends its time; the rest is the decoder's float code, the head and Python between."""
SAMPLE_BYTES = 4096
"""About the size of a share or a result of the built-in model."""
SAMPLE_S = 0.2


@dataclass(slots=True)
class Case:
    """One way of running the prompt, and the receipts of its runs."""

    name: str
    peers: int
    options: Sequence[str]
    receipts: list[dict[str, Any]] = field(default_factory=list)

    def median_of(self, key: str) -> float:
        return median(float(receipt[key]) for receipt in self.receipts)

    def ms_per_token(self) -> float:
        return 1000 / self.median_of("tokens_per_s")

    def moved_kb_per_token(self) -> float:
        """Kilobytes a token, both ways."""
        return median(float(sum(receipt["bytes"].values()) / receipt["tokens"] / 1e3) for receipt in self.receipts)

    def part_ms(self, part: str) -> float:
        """Milliseconds a token in one part, over the whole answer (the prompt's pass is in it)."""
        return median(1000 * PARTS[part](receipt["timings_s"]) / int(receipt["tokens"]) for receipt in self.receipts)


def cases(max_tokens: int) -> list[Case]:
    """Every mode with 2 and with 4 peers; `strict` also with all pads made before the clock starts."""
    ahead = ["--pad-rows", str(max_tokens + 64)]
    return [
        Case("local", 0, ["--privacy", "local"]),
        Case("split", 2, ["--privacy", "split"]),
        Case("split", 4, ["--privacy", "split"]),
        Case("strict", 2, ["--privacy", "strict"]),
        Case("strict", 4, ["--privacy", "strict"]),
        Case("strict, pads ahead", 4, ["--privacy", "strict", *ahead]),
    ]


def crypto_ms_per_kb() -> float:
    """Milliseconds to encrypt and decrypt 1000 bytes with CurveZMQ's cipher (XSalsa20-Poly1305), as measured now.

    ZeroMQ's own threads do it, on both sides: it is a part of the waiting and cannot be timed there, only computed.
    """
    box, message = SecretBox(random(SecretBox.KEY_SIZE)), bytes(SAMPLE_BYTES)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < SAMPLE_S:
        box.decrypt(box.encrypt(message))
        done += len(message)
    return 1000 * (time.perf_counter() - started) / (done / 1000)


@click.command()
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--max-tokens", type=int, default=128, show_default=True)
@click.option("--shape", type=click.Choice(sorted(SHAPES)), help="Random weights of a shape, not the built-in model.")
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, max_tokens: int, shape: str | None, as_json: bool) -> None:
    """Measure tokens a second, time to first token and the parts of the overhead."""
    measured = cases(max_tokens)
    sampling = ["--ignore-eos", "--max-tokens", str(max_tokens), "--temperature", "0"]
    with TemporaryDirectory() as folder, Swarm(model=shape or "story") as swarm:
        swarm.models = None if shape is None else made_models(Path(folder), shape)
        swarm.start(4)
        for _ in range(rounds):
            for case in measured:
                result = swarm.run(PROMPT, [*sampling, *case.options], peers=list(range(case.peers)))
                if result.returncode or result.receipt["chunks"]["rejected"]:
                    raise click.ClickException(f"{case.name}: {result.narration}")
                case.receipts.append(result.receipt)
    if as_json:
        click.echo(
            json.dumps([{"name": case.name, "peers": case.peers, "receipts": case.receipts} for case in measured])
        )
    else:
        _print(measured, rounds)


def _print(measured: list[Case], rounds: int) -> None:
    console = Console(highlight=False)
    cores = psutil.cpu_count()
    console.print(f"{platform.machine()}, {cores} cores, median of {rounds} rounds, all processes on this machine")
    speeds = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (
        "mode",
        "peers",
        "tokens/s",
        "TTFT ms",
        "ms/token",
        "x local",
        "up kB/token",
        "down kB/token",
        "hedged",
    ):
        speeds.add_column(heading, justify="left" if heading == "mode" else "right")
    for case in measured:
        tokens = case.median_of("tokens")
        up, down = (
            median(receipt["bytes"][way] for receipt in case.receipts) / tokens / 1e3 for way in ("up", "down")
        )
        hedged = median(receipt["chunks"]["hedged"] for receipt in case.receipts)
        speeds.add_row(
            case.name,
            str(case.peers),
            f"{case.median_of('tokens_per_s'):.1f}",
            f"{1000 * case.median_of('ttft_s'):.0f}",
            f"{case.ms_per_token():.2f}",
            f"{case.ms_per_token() / measured[0].ms_per_token():.1f}",
            f"{up:.1f}",
            f"{down:.1f}",
            f"{hedged:.0f}",
        )
    console.print(speeds)
    parts = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="ms a token by part", title_justify="left")
    parts.add_column("part")
    for case in measured:
        parts.add_column(f"{case.name} {case.peers or ''}", justify="right")
    for part in PARTS:
        parts.add_row(part, *(f"{case.part_ms(part):.2f}" for case in measured))
    rest = [case.ms_per_token() - sum(case.part_ms(part) for part in PARTS) for case in measured]
    parts.add_row("Python, float code, head", *(f"{ms:.2f}" for ms in rest))
    cipher = crypto_ms_per_kb()
    parts.add_row("(encryption, in the waiting)", *(f"{cipher * case.moved_kb_per_token():.2f}" for case in measured))
    console.print(parts)


if __name__ == "__main__":
    main(prog_name="scripts/bench swarm")
