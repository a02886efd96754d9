"""`scripts/bench trace`: one pass taken apart, beside the least that it could take.

A decode step of one row and a prompt of many are computed alone, in `split` and in `strict`, with two peers of one
thread each on this machine. Each moment of the client's thread counts for one part; what no part explains is shown as
"Python". What the peers did while the client waited is theirs: they say how long their kernels took.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import click
import numpy as np
import psutil
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.execution.direct import DirectAnswers, Outcome
from node.execution.mailbox import Mailbox
from node.execution.pads import guard as guard_pads
from node.execution.pads import own as own_pads
from node.kernels import select_kernels
from node.kernels.interface import Kernels
from node.kernels.native_layers import NativeLayers
from node.node import Node
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.session import Session
from node.store.library import Library
from node.store.stored import StoredModel
from node.transport import channel
from protocol.identity import Identity
from protocol.linear import verification
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.benchmarks.exchange import ELEMENT_BYTES, TIMEOUT_S, Raw, raw_echo
from scripts.harness.random_model import SHAPES, write_random_model
from scripts.harness.stopwatches import Stopwatches
from scripts.harness.swarm import Swarm

PARTS = {
    "layers here": "floats, attention and units that are computed here",
    "head": "the head",
    "pads": "pads and, in strict, their products",
    "share": "rows minus pads",
    "encode": "messages to frames",
    "send": "frames to the socket",
    "wait": "waiting for peers",
    "receive": "frames from the socket",
    "decode": "frames to messages",
    "hash": "SHA-256 of results",
    "Freivalds": "range and Freivalds' check",
    "merge": "two results to one",
}
MODES = (Privacy.LOCAL, Privacy.SPLIT, Privacy.STRICT)
WARM_UP = 3
READ_BYTES = 256 << 20
TRIPS = 20


class Traced(Struct):
    """Medians of some passes, in seconds."""

    wall_s: float
    parts_s: dict[str, float]
    peers_s: float
    """Kernels of peers that were waited for."""
    floor_s: float
    cores: float
    """Cores that all processes kept busy."""


def watched(session: Session, kernels: Kernels) -> Stopwatches:
    """Stopwatches on everything that a pass of this session calls."""
    watches = Stopwatches()
    watches.watch("layers here", NativeLayers, "layer")
    watches.watch("head", session.decoder._head, "logits")
    for part, name in (("share", "share"), ("merge", "merge"), ("pads", "linear_field")):
        watches.watch(part, kernels, name)
    watches.watch("pads", guard_pads.GuardPads, "take")
    watches.watch("pads", own_pads.OwnPads, "take")
    for part, name in (
        ("encode", "encode_message"),
        ("send", "send_frames"),
        ("receive", "receive_frames"),
        ("decode", "decode_message"),
    ):
        watches.watch(part, channel, name)
    watches.watch("wait", Mailbox, "wait")
    watches.watch("receive", DirectAnswers, "wait", _parts_of)
    watches.watch("hash", verification, "result_digest")
    watches.watch("Freivalds", verification, "freivalds")
    return watches


def _parts_of(outcome: Outcome) -> dict[str, float]:
    """What the C call did beside receiving."""
    parts = {
        "wait": outcome.waited_s,
        "hash": outcome.hash_s,
        "Freivalds": outcome.verify_s - outcome.hash_s,
        "merge": outcome.merge_s,
    }
    if outcome.ahead is not None:
        parts |= {
            "layers here": outcome.ahead.layers_s,
            "share": outcome.ahead.share_s,
            "send": outcome.ahead.send_s,
        }
    return parts


def trace(
    session: Session,
    kernels: Kernels,
    tokens: list[int],
    before: list[int],
    count: int,
    processes: Sequence[psutil.Process],
) -> Traced:
    """Medians of `count` passes over `tokens`, each after the same earlier ones.

    Args:
        processes: this one and the peers'.
    """
    decoder = session.decoder
    cache = decoder.new_cache()
    if before:
        decoder.forward(before, cache)
    walls: list[float] = []
    parts: list[dict[str, float]] = []
    peers: list[float] = []
    with watched(session, kernels) as watches:
        for number in range(-WARM_UP, count):
            if number == 0:
                began_s, used_s = time.perf_counter(), _used_s(processes)
            watches.clear()
            asked_s = session.executor.timings.seconds.get("peers", 0.0)
            started = time.perf_counter()
            decoder.forward(tokens, cache)
            wall_s = time.perf_counter() - started
            cache.truncate(len(before))
            if number >= 0:
                walls.append(wall_s)
                parts.append(dict(watches.seconds))
                peers.append(session.executor.timings.seconds.get("peers", 0.0) - asked_s)
        cores = (_used_s(processes) - used_s) / (time.perf_counter() - began_s)
    medians = {part: statistics.median(one.get(part, 0.0) for one in parts) for part in PARTS}
    return Traced(statistics.median(walls), medians, statistics.median(peers), 0.0, cores)


def _used_s(processes: Sequence[psutil.Process]) -> float:
    """Processor time of all threads."""
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


class Machine(Struct):
    """What this machine can do at best, one thread alone."""

    read_s: float
    """Seconds in which it reads a byte that is in no cache."""
    mac_s: float
    """Seconds of a multiply-accumulate where many rows share the weights."""
    raw: Raw

    def floor_s(self, model: StoredModel, mode: Privacy, num_rows: int) -> float:
        """The least that a pass could take: alone, the weights read once and every product; lent, a bare round trip
        of the bytes of each exchange."""
        layers = [ref for ref in model.units if ref.layer is not None]
        head_s = sum(ref.num_bytes for ref in model.units if ref.layer is None) * self.read_s
        if mode is Privacy.LOCAL:
            products_s = num_rows * sum(ref.num_inputs * ref.num_outputs for ref in layers) * self.mac_s
            return head_s + max(sum(ref.num_bytes for ref in layers) * self.read_s, products_s)
        first = [ref for ref in layers if ref.layer == layers[0].layer]
        trips_s = [self.trip_s(num_rows * ref.num_inputs, num_rows * ref.num_outputs) for ref in first]
        return head_s + sum(trips_s) * (len(layers) // len(first))

    def trip_s(self, up: int, down: int) -> float:
        """Of so many elements."""
        return statistics.median(self.raw.trip(ELEMENT_BYTES * up, ELEMENT_BYTES * down) for _ in range(TRIPS))


def seconds_a_mac(kernels: Kernels) -> float:
    """Where many rows share weights that fit into a cache."""
    weights, rows = np.ones((512, 2048), np.int8), np.ones((128, 2048), np.int16)
    return _best_s(lambda: kernels.linear_a12(weights, rows)) / (weights.size * len(rows))


def seconds_a_byte() -> float:
    """Of memory that is in no cache."""
    memory = np.ones(READ_BYTES // 8, np.int64)
    return _best_s(memory.max) / READ_BYTES


def _best_s(function: Callable[[], object]) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


@click.command()
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="135m", show_default=True)
@click.option("--rows", type=click.IntRange(2, 512), default=128, show_default=True, help="Rows of the prompt.")
@click.option("--count", type=click.IntRange(1), default=15, show_default=True, help="Passes of each kind.")
def main(shape: str, rows: int, count: int) -> None:
    """Take passes apart."""
    console = Console(highlight=False, width=150)
    with Swarm(model=shape) as swarm, raw_echo() as raw:
        swarm.models = swarm.folder / "all"
        write_random_model(shape, swarm.folder / "checkpoint", swarm.models)
        swarm.start(2)
        model = Library(swarm.models).resolve(shape)
        machine = Machine(seconds_a_byte(), seconds_a_mac(select_kernels(1)), raw)
        rng = np.random.default_rng(1)
        words = [int(token) for token in rng.integers(3, 250, rows)]
        kinds: tuple[tuple[str, list[int], list[int], int], ...] = (
            ("a token", words[:1], words[:32], count),
            (f"a prompt of {rows}", words, [], max(3, count // 5)),
        )
        for title, tokens, before, passes in kinds:
            traced: dict[Privacy, Traced] = {}
            for mode in MODES:
                traced[mode] = _in_mode(swarm, model, mode, tokens, before, passes)
                traced[mode].floor_s = machine.floor_s(model, mode, len(tokens))
            console.print(_table(f"{shape}, {title}", traced))


def _in_mode(
    swarm: Swarm, model: StoredModel, mode: Privacy, tokens: list[int], before: list[int], count: int
) -> Traced:
    addresses = tuple(parse_multiaddr(node.address) for node in swarm.nodes)
    identity = Identity.from_seed(secrets.token_bytes(32))
    config = NodeConfig(identity, None, addresses, threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
    with Node(config, [model]) as node:
        node.registry.wait_settled([str(address) for address in addresses], 2, TIMEOUT_S)
        with Session(node, model, SessionConfig(privacy=mode, lend=Lend.LAYERS)) as session:
            if session.mode is not mode:
                raise click.ClickException(f"no lane: {session.note}")
            pids = [os.getpid(), *(node.process.pid for node in swarm.nodes)]
            return trace(session, node.kernels, tokens, before, count, [psutil.Process(pid) for pid in pids])


def _table(title: str, traced: dict[Privacy, Traced]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{title}: ms", title_justify="left")
    table.add_column("part")
    for mode in traced:
        table.add_column(mode.value, justify="right")
    table.add_column("what it is")
    for part, meaning in PARTS.items():
        table.add_row(part, *(_ms(one.parts_s[part]) for one in traced.values()), meaning)
    left = [one.wall_s - sum(one.parts_s.values()) for one in traced.values()]
    table.add_row("Python", *map(_ms, left), "everything else in the client's thread")
    table.add_row("together", *(_ms(one.wall_s) for one in traced.values()), "wall time, median of passes")
    table.add_row("", *("" for _ in traced), "")
    table.add_row("peers", *(_ms(one.peers_s) for one in traced.values()), "their kernels, within the waiting")
    cores = [f"{one.cores:.2f} of {psutil.cpu_count()}" for one in traced.values()]
    table.add_row("cores busy", *cores, "by all processes together, this one included")
    floors = [f"{_ms(one.floor_s)} ({one.wall_s / one.floor_s:.1f}x)" for one in traced.values()]
    table.add_row("floor", *floors, "weights read once and all products, or bare round trips")
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds else "–"


if __name__ == "__main__":
    sys.exit(main(prog_name="scripts/bench trace"))
