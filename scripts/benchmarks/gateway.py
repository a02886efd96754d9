"""`scripts/bench gateway`: streams side by side through the gateway of a node with four peers on this machine.

Tokens a second of 1, 2, 4 and 8 streams at once, by mode, and how soon after a connection was closed the last peer
computed its last chunk.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import click
import openai
from rich import box
from rich.console import Console
from rich.table import Table

from scripts.harness.swarm import NodeProcess, Swarm

PROMPT = "Once upon a time, there was a little girl named Lily. One day they"
STREAMS = (1, 2, 4, 8)
MODES = ("local", "split", "strict")
QUIET_S = 0.4
"""A peer whose count has not moved for so long has stopped."""


def stream_tokens(api: openai.OpenAI, mode: str, seed: int, tokens: int) -> tuple[int, float]:
    """Tokens of one stream, and seconds to its first."""
    started, first_s, extra = time.monotonic(), 0.0, {"privacy": mode, "ignore_eos": True}
    stream = api.completions.create(
        model="story", prompt=PROMPT, max_tokens=tokens, seed=seed, temperature=0.8, stream=True, extra_body=extra
    )
    for _chunk in stream:
        first_s = first_s or time.monotonic() - started
    return tokens, first_s


def side_by_side(api: openai.OpenAI, mode: str, streams: int, tokens: int) -> tuple[float, float]:
    """Tokens a second of all streams together, and the median of the seconds to a first token."""
    with ThreadPoolExecutor(streams) as askers:
        started = time.monotonic()
        done = list(askers.map(lambda seed: stream_tokens(api, mode, seed, tokens), range(streams)))
        return sum(count for count, _ in done) / (time.monotonic() - started), median(first for _, first in done)


def served(nodes: Sequence[NodeProcess]) -> int:
    """Chunks that these nodes have computed for others."""
    total = 0.0
    for node in nodes:
        with urllib.request.urlopen(f"{node.gateway}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("kekahyde_served_chunks_total "):
                    total += float(line.split()[1])
    return int(total)


def seconds_to_stop(api: openai.OpenAI, peers: Sequence[NodeProcess], mode: str) -> float:
    """From the closing of a stream to the last time that any peer was seen to have computed one more chunk."""
    extra = {"privacy": mode, "ignore_eos": True}
    stream = api.completions.create(model="story", prompt=PROMPT, max_tokens=300, stream=True, extra_body=extra)
    for _ in zip(range(8), stream, strict=False):
        pass
    stream.close()
    closed = moved = time.monotonic()
    count = served(peers)
    while time.monotonic() - moved < QUIET_S:
        now = served(peers)
        if now != count:
            count, moved = now, time.monotonic()
    return moved - closed


@click.command()
@click.option("--tokens", default=48, show_default=True)
@click.option("--stops", default=5, show_default=True, help="Streams that are closed in the middle, for each mode.")
def main(tokens: int, stops: int) -> None:
    """Measure, and print a table in Markdown's form."""
    table = Table("mode", *(f"{count} streams, tokens/s (first token)" for count in STREAMS), "stopped after")
    table.box = box.MARKDOWN
    with Swarm() as swarm:
        swarm.start(4)
        swarm.start(1, options=swarm.bootstrap())
        peers, node = swarm.nodes[:4], swarm.nodes[4]
        with openai.OpenAI(base_url=f"{node.gateway}/v1", api_key="any", timeout=300, max_retries=0) as api:
            for mode in MODES:
                side_by_side(api, mode, 1, 4)  # the session is formed
                rates = [side_by_side(api, mode, count, tokens) for count in STREAMS]
                slowest = max(seconds_to_stop(api, peers, mode) for _ in range(stops)) if mode != "local" else None
                stopped = "–" if slowest is None else f"{slowest * 1000:.0f} ms"
                table.add_row(mode, *(f"{rate:.0f} ({first_s * 1000:.0f} ms)" for rate, first_s in rates), stopped)
    Console(width=160).print(table)


if __name__ == "__main__":
    main(prog_name="scripts/bench gateway")
