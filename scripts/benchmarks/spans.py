"""`scripts/bench spans`: a model through the user's own devices, beside this device alone.

A client and workers on this machine, each a node of its own with one thread. The ways are taken by turns, so that a
drift of the machine's speed hits both alike; the ratios are of pairs. The texts must be equal.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from node.gateway.client.generating import generate_on_node
from scripts.harness.owner import pair
from scripts.harness.random_model import SHAPES, made_models
from scripts.harness.real_models import SMOLLM2, smollm2_models
from scripts.harness.swarm import Swarm


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--prompt", type=click.IntRange(1), default=512, show_default=True, help="Tokens of the prompt.")
@click.option("--tokens", type=click.IntRange(2), default=48, show_default=True, help="Tokens of the answer.")
@click.option("--workers", type=click.IntRange(1, 8), default=2, show_default=True)
@click.option("--shape", type=click.Choice(sorted(SHAPES)), help="Random weights of a shape instead of SmolLM2.")
@click.option("--recheck", default="0.05", show_default=True, help="The share of results that is computed again.")
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, prompt: int, tokens: int, workers: int, shape: str | None, recheck: str, as_json: bool) -> None:
    """Measure decoding and prefill through spans."""
    with tempfile.TemporaryDirectory(prefix="kekahyde-spans-") as folder:
        models = smollm2_models() if shape is None else made_models(Path(folder), shape)
        name = SMOLLM2 if shape is None else shape
        with Swarm(model=name, models=models) as swarm:
            swarm.start(workers)
            swarm.start(1, options=["--recheck", recheck, *swarm.bootstrap()])
            *devices, client = swarm.nodes
            for device in devices:
                pair(client, device)
            receipts: dict[str, list[dict[str, Any]]] = {"local": [], "trusted": []}
            for number in range(rounds + 1):
                for mode, seen in receipts.items():
                    receipt = ask(client.data_dir, mode, prompt, tokens, number)
                    if number:  # the first maps the weights
                        seen.append(receipt)
                if receipts["local"] and receipts["local"][-1]["text"] != receipts["trusted"][-1]["text"]:
                    raise click.ClickException("the texts differ")
    if as_json:
        click.echo(json.dumps(receipts))
        return
    console = Console(highlight=False, width=110)
    console.print(f"{name}: {platform.machine()}, {psutil.cpu_count()} cores, {workers} workers, {rounds} pairs each")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("what", "alone tok/s", "spans tok/s", "ratio", "of pairs"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    alone, spans = receipts["local"], receipts["trusted"]
    for what, speed in ((f"decode {tokens}", _decode), (f"prefill {prompt}", _prefill)):
        ratios = [speed(there) / speed(here) for here, there in zip(alone, spans, strict=True)]
        table.add_row(
            what,
            f"{statistics.median(map(speed, alone)):.1f}",
            f"{statistics.median(map(speed, spans)):.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    console.print(table)
    plan = spans[-1]["plan"] or {}
    console.print(f"predicted: {plan.get('tokens_per_s')} tokens/s, first token in {plan.get('ttft_s')} s")
    console.print(f"timings of the last answer, s: {spans[-1]['timings_s']}; {json.dumps(spans[-1].get('spans'))}")


def ask(data_dir: Path, mode: str, prompt: int, tokens: int, number: int) -> dict[str, Any]:
    """The receipt of one answer; every prompt is another one, so that no cache serves it."""
    ids = [10 + (7 * number + 3 * place) % 200 for place in range(prompt)]
    receipt: dict[str, Any] = {}
    for event in generate_on_node(
        data_dir, prompt=ids, privacy=mode, max_tokens=tokens, ignore_eos=True, temperature=0.0
    ):
        if event["event"] == "receipt":
            receipt = event["receipt"]
    return receipt


def _decode(receipt: dict[str, Any]) -> float:
    return float(receipt["tokens_per_s"])


def _prefill(receipt: dict[str, Any]) -> float:
    return float(receipt["prompt_tokens"] / receipt["ttft_s"])


if __name__ == "__main__":
    main(prog_name="scripts/bench spans")
