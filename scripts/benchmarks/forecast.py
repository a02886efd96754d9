"""`scripts/bench forecast`: what the planner predicts, and how it really goes; the error is stated.

One client node in this process, 4 node processes beside it on the same cores. For each mode several requests are made
one after the other: before the first, nothing is known of the peers but pings and what they state; later ones are
predicted from what was measured, corrected by how the earlier ones went.
"""

from __future__ import annotations

import platform
import secrets
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.engine import Engine
from node.model.sampling import SamplingParams
from node.node import Node
from node.paths import DataDir
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.receipt import Receipt
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.asking import answer
from scripts.harness.swarm import Swarm

TEXT = "Once upon a time there was a little fox who lived in a wood with her mother and liked to sing . "
CASES = (
    (Privacy.SPLIT, 2, Lend.FFN),
    (Privacy.SPLIT, 2, Lend.LAYERS),
    (Privacy.SPLIT, 2, Lend.ALL),
    (Privacy.SPLIT, 4, Lend.FFN),
    (Privacy.SPLIT, 4, Lend.LAYERS),
    (Privacy.SPLIT, 4, Lend.ALL),
    (Privacy.STRICT, 2, Lend.LAYERS),
    (Privacy.STRICT, 4, Lend.LAYERS),
)
PEERS_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One request: what was predicted, what came."""

    ttft_s: tuple[float, float]
    token_s: tuple[float, float]
    token_bytes: int
    """Predicted, both ways, padding and retries left out."""

    @classmethod
    def of(cls, receipt: Receipt) -> Trial:
        assert receipt.plan is not None
        token_s = (1 / receipt.plan.tokens_per_s, 1 / receipt.tokens_per_s)
        return cls((receipt.plan.ttft_s, receipt.ttft_s), token_s, receipt.plan.bytes_per_token)


def trials(
    swarm: Swarm,
    model: StoredModel,
    mode: Privacy,
    peers: int,
    lend: Lend,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
) -> Iterator[Trial]:
    """So many requests in one session of a node that has just started."""
    addresses = tuple(parse_multiaddr(node.address) for node in swarm.nodes[:peers])
    identity = Identity.from_seed(secrets.token_bytes(32))
    config = NodeConfig(identity, None, addresses, threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
    prompt = model.tokenizer().encode(TEXT * prompt_tokens)[:prompt_tokens]
    params = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
    with Node(config, [model]) as node:
        node.registry.wait_settled([str(address) for address in addresses], peers, PEERS_TIMEOUT_S)
        with Engine(node, Library(model.path.parent), SessionConfig(lend=lend)) as engine:
            for _ in range(rounds):
                _tokens, receipt = answer(engine, model, prompt, params, mode)
                if receipt.mode != mode.value:
                    raise click.ClickException(f"{mode.value} over {peers} peers did not form: {receipt.note}")
                yield Trial.of(receipt)


@click.command()
@click.option("--rounds", type=click.IntRange(2), default=5, show_default=True, help="Requests of each session.")
@click.option("--prompt-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--new-tokens", type=click.IntRange(2), default=48, show_default=True)
@click.option("--model", "name", default="story", show_default=True)
def main(rounds: int, prompt_tokens: int, new_tokens: int, name: str) -> None:
    """Compare predictions with what happens."""
    console = Console(highlight=False, width=120)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ("mode", "peers", "lend", "request", "TTFT said", "was", "error", "token said", "was", "error", "kB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("mode", "lend") else "right")
    errors: dict[str, list[float]] = {"first": [], "last": []}
    with Swarm(model=name) as swarm:
        swarm.start(4)
        library = Library(DataDir.open(Path(swarm.folder / "client")).models)
        model = library.resolve(name)
        for mode, peers, lend in CASES:
            seen = list(trials(swarm, model, mode, peers, lend, prompt_tokens, new_tokens, rounds))
            for label, trial in (("first", seen[0]), ("last", seen[-1])):
                row = [mode.value, str(peers), lend.value, label]
                for said_s, was_s in (trial.ttft_s, trial.token_s):
                    row += [f"{1000 * said_s:.1f} ms", f"{1000 * was_s:.1f} ms", f"{said_s / was_s - 1:+.0%}"]
                    errors[label].append(abs(said_s / was_s - 1))
                table.add_row(*row, f"{trial.token_bytes / 1000:.0f}")
    console.print(
        f"{platform.machine()}, {psutil.cpu_count()} cores, client and peers on the same ones; {rounds} requests"
    )
    console.print(table)
    for label, values in errors.items():
        console.print(f"{label} request: median error {statistics.median(values):.0%}, largest {max(values):.0%}")


if __name__ == "__main__":
    main(prog_name="scripts/bench forecast")
