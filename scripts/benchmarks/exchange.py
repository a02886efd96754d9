"""`scripts/bench exchange`: what lending one layer costs, beside a bare round trip of the same bytes.

An exchange is one row of one unit: share, message, the peer's kernel, message, check and merge; pads are made before.
The bare round trip moves as many bytes over one CURVE connection between two processes that do nothing else. Both are
made in turn, so that a drift of the machine's speed hits both alike.
"""

from __future__ import annotations

import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import click
import numpy as np
import psutil
import zmq
from rich import box
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.model.config import LAYER_KINDS, UnitKind
from node.model.unit import Unit
from node.node import Node
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.session import Session
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.programs import program
from scripts.harness.random_model import SHAPES, write_random_model
from scripts.harness.raw_echo import HEADER_BYTES
from scripts.harness.swarm import Swarm

ELEMENT_BYTES = 4
HEADER_OF_REQUEST_BYTES = 200
TIMEOUT_S = 20.0
WARM_UP = 50
BLOCK = 50
"""So many of one kind are made before those of the other."""


@dataclass(slots=True)
class Series:
    """Seconds of each exchange and of each bare round trip of one unit; seconds by part of all exchanges."""

    exchange_s: list[float] = field(default_factory=list)
    raw_s: list[float] = field(default_factory=list)
    parts_s: dict[str, float] = field(default_factory=dict)


class Raw:
    """A bare round trip."""

    def __init__(self, port: int, public_key: str) -> None:
        self._context = zmq.Context(1)
        self._socket = self._context.socket(zmq.DEALER)
        own_public, own_secret = zmq.curve_keypair()
        self._socket.curve_serverkey = public_key.encode()
        self._socket.curve_publickey, self._socket.curve_secretkey = own_public, own_secret
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def trip(self, up_bytes: int, down_bytes: int) -> float:
        """Seconds."""
        payload = bytes(up_bytes)
        header = down_bytes.to_bytes(8, "little") + bytes(HEADER_OF_REQUEST_BYTES - 8)
        started = time.perf_counter()
        self._socket.send_multipart([header, payload], copy=False)
        answer = self._socket.recv_multipart(copy=False)
        seconds = time.perf_counter() - started
        assert len(answer[1]) == down_bytes and len(answer[0]) == HEADER_BYTES
        return seconds

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextmanager
def raw_echo() -> Iterator[Raw]:
    """A process that answers, and a connection to it."""
    command = program("scripts.harness.raw_echo")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    try:
        port, public_key = process.stdout.readline().split()
        raw = Raw(int(port), public_key)
        yield raw
        raw.close()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def measure(session: Session, raw: Raw, unit: Unit, count: int) -> Series:
    """So many exchanges of one unit, and bare round trips between them."""
    executor, series = session.executor, Series()
    rng = np.random.default_rng(1)
    rows = rng.integers(-2000, 2000, (1, unit.ref.num_inputs)).astype(np.int16)
    executor.begin_step(1, [unit])
    expected = None
    before: dict[str, float] = {}
    for number in range(-WARM_UP, count):
        if number == 0:
            before = dict(executor.timings.seconds)
        started = time.perf_counter()
        sums = executor.linear(unit, rows)
        seconds = time.perf_counter() - started
        assert expected is None or np.array_equal(sums, expected)
        expected = sums
        if number >= 0:
            series.exchange_s.append(seconds)
        if number >= 0 and number % BLOCK == BLOCK - 1:
            sizes = unit.ref.num_inputs * ELEMENT_BYTES, unit.ref.num_outputs * ELEMENT_BYTES
            series.raw_s += [raw.trip(*sizes) for _ in range(BLOCK)]
    series.parts_s = {part: seconds - before.get(part, 0.0) for part, seconds in executor.timings.seconds.items()}
    return series


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


@click.command()
@click.option("--count", type=click.IntRange(BLOCK), default=1000, show_default=True, help="Exchanges of each unit.")
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="135m", show_default=True)
def main(count: int, shape: str) -> None:
    """Measure exchanges beside bare round trips."""
    console = Console(highlight=False, width=140)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("unit", "up kB", "down kB", "exchange", "p95", "bare", "p95", "kernel", "x (bare + kernel)"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    parts_table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="client, mean µs", title_justify="left")
    swarm = Swarm(model=shape, lend="all")
    swarm.models = swarm.folder / "all"
    with swarm, raw_echo() as raw:
        write_random_model(shape, swarm.folder / "checkpoint", swarm.models)
        swarm.start(1)
        model = Library(swarm.models).resolve(shape)
        names = ("pads", "share", "send", "wait", "peers", "verify", "merge")
        for heading in ("unit", *names, "rest"):
            parts_table.add_column(heading, justify="left" if heading == "unit" else "right")
        for kind, series in measured(swarm, model, raw, count):
            unit = next(ref for ref in model.units if ref.layer == 1 and ref.kind == kind)
            kernel_s = series.parts_s.get("peers", 0.0) / count
            exchange_s, raw_s = statistics.median(series.exchange_s), statistics.median(series.raw_s)
            table.add_row(
                kind,
                f"{unit.num_inputs * ELEMENT_BYTES / 1e3:.1f}",
                f"{unit.num_outputs * ELEMENT_BYTES / 1e3:.1f}",
                *(f"{1e6 * s:.0f} µs" for s in (exchange_s, p95(series.exchange_s), raw_s, p95(series.raw_s))),
                f"{1e6 * kernel_s:.0f} µs",
                f"{exchange_s / (raw_s + kernel_s):.2f}",
            )
            shown = {part: series.parts_s.get(part, 0.0) for part in names}
            shown["wait"] -= shown["peers"]
            rest = sum(series.exchange_s) - sum(shown.values())
            parts_table.add_row(kind, *(f"{1e6 * s / count:.0f}" for s in (*shown.values(), rest)))
    console.print(f"{platform.machine()}, {psutil.cpu_count()} cores, both ends on the same ones; {count} of each")
    console.print(table)
    console.print(parts_table)


def measured(swarm: Swarm, model: StoredModel, raw: Raw, count: int) -> Iterator[tuple[UnitKind, Series]]:
    """A series for each kind of unit, in one session of the mode strict with one peer."""
    address = parse_multiaddr(swarm.nodes[0].address)
    identity = Identity.from_seed(secrets.token_bytes(32))
    config = NodeConfig(identity, None, (address,), threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
    with Node(config, [model]) as node:
        node.registry.wait_settled([str(address)], 1, TIMEOUT_S)
        sessions = SessionConfig(privacy=Privacy.STRICT, lend=Lend.ALL)
        with Session(node, model, sessions) as session:
            if session.mode is not Privacy.STRICT:
                raise click.ClickException(f"no lane: {session.note}")
            pads = session.own_pads
            assert pads is not None
            for kind in LAYER_KINDS:
                ref = next(ref for ref in model.units if ref.layer == 1 and ref.kind == kind)
                unit = model.unit(ref.layer, ref.kind)
                pads.fill([unit], count + WARM_UP)
                yield kind, measure(session, raw, unit, count)


if __name__ == "__main__":
    sys.exit(main(prog_name="scripts/bench exchange"))
