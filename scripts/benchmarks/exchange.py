"""`scripts/bench exchange`: what lending one layer costs, beside a bare round trip of the same bytes.

An exchange is one row of one unit: share, message, the peer's kernel, message, check and merge; pads are made before.
They are measured as they come in decoding, one after the other: from the end of one to the end of the next, without
the layers' own work between them. The bare round trip moves as many bytes over one CURVE connection between two
processes that do nothing else. Both are made in turn, so that a drift of the machine's speed hits both alike.
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
from itertools import pairwise
from typing import Any

import click
import psutil
import zmq
from rich import box
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.execution.direct import DirectAnswers, Outcome
from node.execution.peer import Request
from node.model.config import LAYER_KINDS, UnitKind
from node.model.unit import UnitRef
from node.node import Node
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.session import Session
from node.store.library import Library
from node.store.stored import StoredModel
from node.transport.channel import Channel
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
WARM_UP = 3
"""Passes before the first one that counts."""
PARTS = ("wait", "verify", "merge", "share", "send")


@dataclass(slots=True)
class Series:
    """Seconds of each exchange and of each bare round trip of one kind of unit; seconds by part of all exchanges."""

    exchange_s: list[float] = field(default_factory=list)
    raw_s: list[float] = field(default_factory=list)
    kernel_s: list[float] = field(default_factory=list)
    parts_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def add(self, seconds: float, outcome: Outcome) -> None:
        """Add an exchange that took so long."""
        ahead = outcome.ahead
        self.exchange_s.append(seconds - (0.0 if ahead is None else ahead.layers_s))
        self.kernel_s.append(outcome.compute_us / 1e6)
        sent = (0.0, 0.0) if ahead is None else (ahead.share_s, ahead.send_s)
        for part, value in zip(PARTS, (outcome.waited_s, outcome.verify_s, outcome.merge_s, *sent), strict=True):
            self.parts_s[part] += value


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


@contextmanager
def noted_waits() -> Iterator[list[tuple[UnitKind, float, Outcome]]]:
    """Every answer that is waited for alone: of which kind of unit, when its wait ended, and what came of it."""
    noted: list[tuple[UnitKind, float, Outcome]] = []
    wait: Any = DirectAnswers.wait

    def watched(self: DirectAnswers, channel: Channel, request: Request, *rest: Any) -> Outcome:
        outcome: Outcome = wait(self, channel, request, *rest)
        noted.append((request.unit.kind, time.perf_counter(), outcome))
        return outcome

    DirectAnswers.wait = watched  # type: ignore[assignment, method-assign]
    try:
        yield noted
    finally:
        DirectAnswers.wait = wait  # type: ignore[method-assign]


def measure(session: Session, raw: Raw, units: Sequence[UnitRef], passes: int) -> dict[UnitKind, Series]:
    """The exchanges of so many passes of one token, and bare round trips between the passes."""
    found = {kind: Series() for kind in LAYER_KINDS}
    with noted_waits() as waits:
        for number in range(-WARM_UP, passes):
            waits.clear()
            session.decoder.forward([1], session.decoder.new_cache())
            if number < 0:
                continue
            for (_kind, before, previous), (kind, ended, outcome) in pairwise(waits):
                if previous.ahead is not None and previous.ahead.is_sent and outcome.sums is not None:
                    found[kind].add(ended - before, outcome)
            for unit in units:
                sizes = unit.num_inputs * ELEMENT_BYTES, unit.num_outputs * ELEMENT_BYTES
                found[unit.kind].raw_s.append(raw.trip(*sizes))
    return found


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


@click.command()
@click.option("--passes", type=click.IntRange(2), default=30, show_default=True, help="Tokens that are computed.")
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="135m", show_default=True)
def main(passes: int, shape: str) -> None:
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
        for heading in ("unit", *PARTS, "rest"):
            parts_table.add_column(heading, justify="left" if heading == "unit" else "right")
        for kind, series in measured(swarm, model, raw, passes).items():
            unit = next(ref for ref in model.units if ref.kind == kind)
            medians = [statistics.median(each) for each in (series.exchange_s, series.raw_s, series.kernel_s)]
            exchange_s, raw_s, kernel_s = medians
            table.add_row(
                kind,
                f"{unit.num_inputs * ELEMENT_BYTES / 1e3:.1f}",
                f"{unit.num_outputs * ELEMENT_BYTES / 1e3:.1f}",
                *(f"{1e6 * s:.0f} µs" for s in (exchange_s, p95(series.exchange_s), raw_s, p95(series.raw_s))),
                f"{1e6 * kernel_s:.0f} µs",
                f"{exchange_s / (raw_s + kernel_s):.2f}",
            )
            rest = sum(series.exchange_s) - sum(series.parts_s.values())
            count = len(series.exchange_s)
            parts_table.add_row(kind, *(f"{1e6 * s / count:.0f}" for s in (*series.parts_s.values(), rest)))
    console.print(f"{platform.machine()}, {psutil.cpu_count()} cores, both ends on the same ones; {passes} tokens")
    console.print(table)
    console.print(parts_table)


def measured(swarm: Swarm, model: StoredModel, raw: Raw, passes: int) -> dict[UnitKind, Series]:
    """A series for each kind of unit, in one session of the mode strict with one peer."""
    address = parse_multiaddr(swarm.nodes[0].address)
    identity = Identity.from_seed(secrets.token_bytes(32))
    config = NodeConfig(identity, None, (address,), threads=1, swarm_key=SwarmKey.from_hex(swarm.key))
    with Node(config, [model]) as node:
        node.registry.wait_settled([str(address)], 1, TIMEOUT_S)
        sessions = SessionConfig(privacy=Privacy.STRICT, lend=Lend.LAYERS)
        with Session(node, model, sessions) as session:
            if session.mode is not Privacy.STRICT:
                raise click.ClickException(f"no lane: {session.note}")
            refs = [ref for ref in model.units if ref.layer is not None]
            pads = session.own_pads
            assert pads is not None
            pads.fill([model.unit(ref.layer, ref.kind) for ref in refs], passes + WARM_UP)
            return measure(session, raw, refs, passes)


if __name__ == "__main__":
    sys.exit(main(prog_name="scripts/bench exchange"))
