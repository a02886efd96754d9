"""`scripts/bench memory`: what a client needs of memory, thin and whole, beside a node that does nothing.

Nodes that hold the whole model compute; the client is a node of its own, asked through its socket. Of each process:
private bytes (USS) and resident bytes (RSS), at rest and the most that was seen while it answered. Weights are mapped
from files: those that are read are resident, and private where nobody else maps them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from node.gateway.client.client import call_node
from node.gateway.client.generating import generate_on_node
from node.store.library import Library, ModelSummary
from scripts.harness.random_model import SHAPES, write_random_model
from scripts.harness.real_models import SMOLLM2, link_models, smollm2_models
from scripts.harness.swarm import NodeProcess, Swarm

MIB = 1 << 20
SAMPLE_S = 0.01
REST_S = 1.0
PROMPT = "Once upon a time"
CASES = (("thin, all lent", "all"), ("thin, head here", "layers"), ("thin, attention and head here", "ffn"))


@dataclass(slots=True)
class Memory:
    """Bytes of one process."""

    uss: int = 0
    rss: int = 0

    def most(self, process: psutil.Process) -> None:
        """Look once more."""
        info = process.memory_full_info()
        self.uss, self.rss = max(self.uss, info.uss), max(self.rss, info.rss)


@contextmanager
def watched(node: NodeProcess) -> Iterator[Memory]:
    """The most that a node's process has while the block runs."""
    seen, over, process = Memory(), threading.Event(), psutil.Process(node.process.pid)

    def look() -> None:
        while not over.wait(SAMPLE_S):
            seen.most(process)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def at_rest(node: NodeProcess) -> Memory:
    time.sleep(REST_S)
    memory = Memory()
    memory.most(psutil.Process(node.process.pid))
    return memory


def pulled(swarm: Swarm, client: NodeProcess, model: ModelSummary, lend: str) -> float:
    """Have the client's node let the model go by; seconds."""
    started = time.monotonic()
    job = call_node(client.data_dir, "pull", model=model.model_id, thin=True, lend=lend)
    while job["state"] == "running":
        time.sleep(0.1)
        job = next(one for one in call_node(client.data_dir, "transfers")["transfers"] if one["id"] == job["id"])
    if job["state"] != "done":
        raise click.ClickException(f"the model did not come: {job['error']}")
    return time.monotonic() - started


def answered(client: NodeProcess, model_id: str, privacy: str, lend: str, tokens: int) -> dict[str, Any]:
    """The receipt of an answer."""
    wanted = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0.0, "ignore_eos": True}
    events = generate_on_node(client.data_dir, model=model_id, privacy=privacy, lend=lend, **wanted)
    return dict(list(events)[-1]["receipt"])


@click.command()
@click.option("--model", "name", type=click.Choice([SMOLLM2, *SHAPES]), default=SMOLLM2, show_default=True)
@click.option("--tokens", type=click.IntRange(1), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(name: str, tokens: int, as_json: bool) -> None:
    """Measure a client of a model that 2 nodes hold."""
    console = Console(highlight=False, width=140)
    with tempfile.TemporaryDirectory(prefix="kekahyde-memory-") as temporary:
        models_dir = smollm2_models() if name == SMOLLM2 else Path(temporary) / "models"
        if name != SMOLLM2:
            write_random_model(name, Path(temporary) / "source", models_dir)
        model = next(one for one in Library(models_dir).list() if name in one.names)
        with Swarm(model=name, models=models_dir) as swarm:
            swarm.start(2)
            rows = measure(swarm, model, models_dir, tokens)
    if as_json:
        console.print_json(json.dumps({"model": name, "weights_bytes": model.weights_bytes, "cases": rows}))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{name}: units of {model.weights_bytes / MIB:.0f} MiB")
    headings = ("client", "pulled in", "peak then", "weights here", "checks", "private above idle", "")
    for heading in (*headings, "resident above idle", ""):
        table.add_column(heading, justify="left" if heading == "client" else "right")
    for row in rows:
        cells = [f"{row[key] / MIB:.1f}" for key in ("pull_uss", "weights_here", "checks", "uss", "rss")]
        parts = [f"{row[key] / model.weights_bytes:.1%}" for key in ("uss", "rss")]
        table.add_row(str(row["case"]), f"{row['pull_s']:.1f} s", *cells[:4], parts[0], cells[4], parts[1])
    console.print(table)
    console.print("MiB; an idle node is the same program without a model. Peers and client share this machine.")


def measure(swarm: Swarm, model: ModelSummary, models_dir: Path, tokens: int) -> Sequence[dict[str, Any]]:
    """Each kind of client, after the other."""
    rows = []
    for case, lend in CASES:
        client = _client(swarm, ["--model", "none"])
        idle = at_rest(client)
        with watched(client) as pulling:
            pull_s = pulled(swarm, client, model, lend)
        with watched(client) as seen:
            receipt = answered(client, model.model_id, "split", lend, tokens)
        rows.append(_row(case, idle, pulling, pull_s, seen, receipt))
        _leave(swarm, client)
    client = _client(swarm, ["--model", "none"], models_dir)
    idle = at_rest(client)
    with watched(client) as seen:
        receipt = answered(client, model.model_id, "local", "auto", tokens)
    rows.append(_row("whole, alone", idle, idle, 0.0, seen, receipt))
    _leave(swarm, client)
    return rows


def _row(
    case: str, idle: Memory, pulling: Memory, pull_s: float, seen: Memory, receipt: dict[str, Any]
) -> dict[str, Any]:
    memory = receipt["memory"]
    return {
        "case": case,
        "pull_s": pull_s,
        "pull_uss": pulling.uss - idle.uss,
        "weights_here": memory["weights_here_bytes"],
        "checks": memory["checks_bytes"],
        "uss": seen.uss - idle.uss,
        "rss": seen.rss - idle.rss,
        "tokens_per_s": receipt["tokens_per_s"],
    }


def _client(swarm: Swarm, options: Sequence[str], models_dir: Path | None = None) -> NodeProcess:
    swarm.models = None
    swarm.start(1, options=[*options, *swarm.bootstrap([0, 1])])
    client = swarm.nodes[-1]
    if models_dir is not None:
        shutil.rmtree(client.data_dir / "models", ignore_errors=True)
        link_models(models_dir, client.data_dir)
    return client


def _leave(swarm: Swarm, client: NodeProcess) -> None:
    client.stop()
    shutil.rmtree(client.data_dir / "models", ignore_errors=True)


if __name__ == "__main__":
    main(prog_name="scripts/bench memory")
