"""`scripts/bench tui`: how smooth the interface is under load, and what it costs when nothing happens.

The real interface draws on a pseudo-terminal of 120 x 40. Under load it talks to a twin of the gateway, which sends
what a busy swarm sends; at rest it runs with a real node. A frame is one update of the screen: layout, drawing and
writing. A stall is the longest time for which a key would have waited. Both are wall-clock times, so that whatever
else runs on this machine makes them worse; `own` is the processor time of a frame.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
from rich import box
from rich.console import Console
from rich.table import Table
from textual.screen import Screen

from scripts.harness.gateway_twin import PEER_IDS, GatewayTwin, TwinConnection, peer
from scripts.harness.programs import environment, program
from scripts.harness.pty_program import PtyProgram
from tui.app import KekahydeApp
from tui.launcher import NodeLauncher
from tui.main import SETTLED_AFTER_S, settle_memory

SIZE = (120, 40)
PEERS = 64
CHUNKS_PER_S = 500
TOKENS_PER_S = 100
LINES = 10_000
LIMIT_MS = 50.0
IDLE_LIMIT_PERCENT = 3.0
PROBE_S = 0.002
OPENING = "opening"
WORDS = (
    "## A chapter\n\n" + "The **little robot** went to the `garden` and sang to the flowers. " * 6 + "\n\n"
    "- first the *red* one\n- then the blue one\n\n```python\nfor flower in garden:\n    water(flower)\n```\n\n"
).split(" ")


@dataclass(slots=True)
class Record:
    """What was measured while one screen was shown."""

    frames_ms: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    stalls_ms: list[float] = field(default_factory=list)


class MeasuredApp(KekahydeApp):
    """The interface with a stop watch."""

    def __init__(self, data_dir: Path, output: Path) -> None:
        super().__init__(NodeLauncher(data_dir, None))
        self.records: dict[str, Record] = defaultdict(Record)
        self._output = output
        self._measure_frames()

    def _measure_frames(self) -> None:
        update, app = Screen._on_timer_update, self
        shown = ""

        def measured(screen: Screen[Any]) -> None:
            nonlocal shown
            wall, own = time.perf_counter(), time.thread_time()
            update(screen)
            spent_ms = (time.perf_counter() - wall) * 1000
            if spent_ms > 0.2:  # else there was nothing to draw
                record = app.records[app.current_mode if app.current_mode == shown else OPENING]
                shown = app.current_mode
                record.frames_ms.append(spent_ms)
                record.own_ms.append((time.thread_time() - own) * 1000)

        Screen._on_timer_update = measured  # type: ignore[method-assign, assignment]

    async def probe(self) -> None:
        """Notice for how long the event loop was held."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PROBE_S)
            late_ms = (time.perf_counter() - before - PROBE_S) * 1000
            self.records[self.current_mode].stalls_ms.append(late_ms)

    async def measure(self) -> None:
        asyncio.get_running_loop().call_later(SETTLED_AFTER_S, settle_memory)
        probe = asyncio.create_task(self.probe())
        await self.run_async()
        probe.cancel()
        facts = {mode: [r.frames_ms, r.own_ms, r.stalls_ms] for mode, r in self.records.items()}
        self._output.write_text(json.dumps(facts))


async def stream(connection: TwinConnection, request: dict[str, Any]) -> None:
    """Tokens at the set speed, without end."""
    name = request["request"]
    await connection.generation(name, "started", mode="split", model="story", plan="", prompt_tokens=5)
    began, index = time.monotonic(), 0
    while not connection.closed:
        while index < (time.monotonic() - began) * TOKENS_PER_S:
            await connection.generation(name, "token", index=index, id=index, text=WORDS[index % len(WORDS)] + " ")
            index += 1
        await asyncio.sleep(0.5 / TOKENS_PER_S)


async def long_answer(connection: TwinConnection, request: dict[str, Any]) -> None:
    """Ten thousand lines, as fast as they are taken."""
    lines = [f"{number}. line {number} of a long answer\n\n" for number in range(LINES // 2)]
    await connection.answer(request["request"], ["".join(lines[at : at + 10]) for at in range(0, len(lines), 10)])


async def busy_swarm(twin: GatewayTwin) -> None:
    """State of many peers four times a second, chunks twenty times a second."""
    sequence = 0
    for tick in range(10**9):
        if tick % 5 == 0:
            moved = [peer(n, chunks=tick * (n + 1), rtt_ms=1 + (tick * n) % 70 / 10) for n in range(PEERS)]
            await twin.tell(peers=moved)
        items = []
        for _ in range(CHUNKS_PER_S // 20):
            sequence += 1
            unit = ("qkv", "o", "gate_up", "down")[sequence % 4]
            who, layer = PEER_IDS[sequence % PEERS], sequence % 32
            end = "rejected" if sequence % 997 == 0 else "merged"
            for state in ("sent", "verified", end):
                items.append([sequence, "r", layer, unit, 0, 8, who, "share", state, 1.0 + sequence % 9])
        await twin.broadcast({"type": "chunks", "dropped": 0, "items": items})
        await asyncio.sleep(0.05)


async def under_load(seconds: float, folder: Path) -> tuple[dict[str, Record], float]:
    """Chat, chunks and peers in turn, while everything moves; what was measured, and the share of a core."""
    twin = GatewayTwin(stream)
    async with twin.serve(folder):
        with interface(folder) as program:
            await connected(twin, program)
            swarm = asyncio.create_task(busy_swarm(twin))
            program.press("enter")
            await asyncio.sleep(1.0)
            before = program.cpu_s()
            for key in ("f2", "f5", "f3"):
                program.press(key)
                await asyncio.sleep(seconds)
            share = (program.cpu_s() - before) / (3 * seconds)
            program.press("ctrl+q")
            await asyncio.to_thread(program.process.wait, 20)
            swarm.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await swarm
    return read_records(folder), share


async def scrolling(folder: Path) -> dict[str, Record]:
    """The long answer arrives, then a person leafs through it from end to end."""
    twin = GatewayTwin(long_answer)
    async with twin.serve(folder):
        with interface(folder) as program:
            await connected(twin, program)
            program.press("enter")
            await asyncio.sleep(6.0)
            for key in ("pageup",) * 40 + ("ctrl+home",) + ("pagedown",) * 40 + ("ctrl+end",) + ("pageup",) * 5:
                program.press(key)
                await asyncio.sleep(0.1)
            program.press("ctrl+q")
            await asyncio.to_thread(program.process.wait, 20)
    return read_records(folder)


def at_rest(seconds: float, folder: Path) -> tuple[float, float]:
    """Shares of a core that the node and the interface take when nobody does anything."""
    command = [sys.executable, "-m", "node", "--data-dir", str(folder), "--listen", "/ip4/127.0.0.1/tcp/0"]
    with PtyProgram(command, SIZE) as program:
        while not (folder / "control.sock").exists():
            time.sleep(0.1)
        time.sleep(5.0)
        interface_process = psutil.Process(program.process.pid)
        (node,) = interface_process.children()
        before = [_spent_s(node), _spent_s(interface_process)]
        time.sleep(seconds)
        spent = [_spent_s(node) - before[0], _spent_s(interface_process) - before[1]]
        program.press("ctrl+q")
        program.process.wait(20)
    return spent[0] / seconds, spent[1] / seconds


def _spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def interface(folder: Path) -> PtyProgram:
    output = str(folder / "records.json")
    command = [*program("scripts.benchmarks.tui"), "--inside", str(folder), output]
    return PtyProgram(command, SIZE, environment())


async def connected(twin: GatewayTwin, program: PtyProgram) -> None:
    while not twin.requests("subscribe"):
        if program.process.poll() is not None:
            raise click.ClickException("the interface did not start")
        await asyncio.sleep(0.05)
    await asyncio.sleep(2 * SETTLED_AFTER_S)


def read_records(folder: Path) -> dict[str, Record]:
    facts = json.loads((folder / "records.json").read_text())
    return {mode: Record(*lists) for mode, lists in facts.items() if lists[0]}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def add_rows(table: Table, records: dict[str, Record], names: dict[str, str]) -> None:
    for mode, name in names.items():
        record = records.get(mode)
        if record is not None:
            frames, own, stalls = record.frames_ms, record.own_ms, record.stalls_ms
            cells = [percentile(frames, 0.5), percentile(frames, 0.95), max(frames), percentile(own, 0.95)]
            cells += [percentile(stalls, 0.99), max(stalls, default=0.0)]
            table.add_row(name, str(len(frames)), *(f"{cell:.1f}" for cell in cells))


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(1), default=8.0, show_default=True, help="For each screen.")
@click.option("--idle-seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="At rest.")
@click.option("--inside", nargs=2, type=click.Path(path_type=Path), hidden=True)
def main(seconds: float, idle_seconds: float, inside: tuple[Path, Path] | None) -> None:
    if inside is not None:
        asyncio.run(MeasuredApp(*inside).measure())
        return
    table = Table(box=box.MARKDOWN, title="ms")
    for column in ("what", "frames", "frame p50", "p95", "worst", "own p95", "stall p99", "worst stall"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as name:
        loaded, share = asyncio.run(under_load(seconds, Path(name)))
    load = f"{TOKENS_PER_S} tokens/s, {PEERS} peers, {CHUNKS_PER_S} chunks/s"
    add_rows(table, loaded, {mode: f"{mode}: {load}" for mode in ("chat", "chunks", "peers")})
    add_rows(table, loaded, {OPENING: "the first frame of a screen, the same load"})
    with tempfile.TemporaryDirectory() as name:
        add_rows(table, asyncio.run(scrolling(Path(name))), {"chat": f"an answer of {LINES} lines, leafed through"})
    with tempfile.TemporaryDirectory() as name:
        node, drawn = at_rest(idle_seconds, Path(name))
    console = Console(width=140)
    console.print(table)
    console.print(
        f"Under load the interface takes {100 * share:.0f} % of a core (limit of a frame: {LIMIT_MS:.0f} ms)."
    )
    console.print(
        f"At rest the node takes {100 * node:.2f} % of a core and the interface {100 * drawn:.2f} % "
        f"(limit together: {IDLE_LIMIT_PERCENT:.0f} %). Load of this machine: {os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    main(prog_name="scripts/bench tui")
