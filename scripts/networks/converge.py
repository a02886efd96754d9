"""How soon a whole swarm knows of a change: real processes on loopback, each a node without a model.

Node 0 is told to nobody; all others are told its address alone. Once everybody has a link to everybody, one node at a
time issues a new record, and every node reports when it learned of it. The verdict is on the time until the last did.
"""

from __future__ import annotations

import json
import os
import queue
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click
import psutil

from scripts.harness.programs import environment, program
from scripts.networks.network import Network

NODE = program("scripts.networks.converge_node")
START_TIMEOUT_S = 300.0
CHANGE_TIMEOUT_S = 15.0
LOOK_S = 0.5
PAUSE_S = 0.2
"""Between two changes, so that the news of one is not the traffic of the next."""
LIMIT_S = 1.5
STOP_TIMEOUT_S = 10.0


class ConvergeError(Exception):
    """The swarm did not do what was waited for."""


@dataclass(slots=True)
class Participant:
    """One node's process and what it said."""

    process: subprocess.Popen[str]
    peer: str = ""
    address: str = ""
    ready_s: float = 0.0
    links: int = 0
    """Peers that it had a link to when it was asked last."""
    known: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of each peer: the newest number, and when it came here."""


@dataclass(slots=True)
class Crowd:
    """All nodes; a context manager that ends what it started."""

    size: int
    folder: Path
    network: Network | None = None
    """Each node in a namespace of its own; None: all on loopback."""
    nodes: list[Participant] = field(default_factory=list)
    issued: queue.Queue[tuple[int, int, float]] = field(default_factory=queue.Queue)
    """Node, number of its new record, when the change was made."""
    _key: str = field(default_factory=lambda: secrets.token_hex(32))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for node in self.nodes:
            if node.process.stdin is not None:
                node.process.stdin.close()
        for node in self.nodes:
            try:
                node.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()

    def start(self) -> None:
        """Start all; returns when everybody knows everybody."""
        self._spawn(())
        self._wait(lambda: bool(self.nodes[0].address), START_TIMEOUT_S, "the first node did not start")
        for _ in range(self.size - 1):
            self._spawn((self.nodes[0].address,))
        self._wait(self._all_known, START_TIMEOUT_S, "not everybody came to know everybody")

    def settle(self) -> None:
        """Wait until everybody has a link to everybody: what is news after that is what changes."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while min(node.links for node in self.nodes) < self.size - 1:
            if time.monotonic() > deadline:
                raise ConvergeError(f"links: {sorted(node.links for node in self.nodes)} after {START_TIMEOUT_S:g} s")
            for node in self.nodes:
                self._tell(node, "links")
            time.sleep(LOOK_S)

    def change(self, index: int, number: int) -> float:
        """Make one change; seconds until the last node knew of it."""
        self._tell(self.nodes[index], f"change {number}")
        changed, seq, started = self.issued.get(timeout=CHANGE_TIMEOUT_S)
        assert changed == index, "one change at a time"
        peer = self.nodes[index].peer
        others = [node for node in self.nodes if node.peer != peer]
        try:
            self._wait(lambda: not late(others, peer, seq), CHANGE_TIMEOUT_S, f"change {number} was not known by all")
        except ConvergeError as exc:
            raise ConvergeError(f"{exc}: {late(others, peer, seq)} nodes did not know of it") from exc
        arrived = [node.known[peer] for node in others]
        return max(at for _, at in arrived) - started

    def _tell(self, node: Participant, line: str) -> None:
        assert node.process.stdin is not None
        node.process.stdin.write(line + "\n")
        node.process.stdin.flush()

    def _all_known(self) -> bool:
        peers = {node.peer for node in self.nodes}
        return "" not in peers and all(len(node.known.keys() & peers) == self.size - 1 for node in self.nodes)

    def _wait(self, condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise ConvergeError(f"{failure} within {timeout_s:g} s")
            for node in self.nodes:
                if node.process.poll() is not None:
                    raise ConvergeError(f"a node ended with exit code {node.process.returncode}")
            time.sleep(0.01)

    def _spawn(self, bootstrap: Sequence[str]) -> None:
        index = len(self.nodes)
        with (self.folder / f"node{index}.err").open("w") as errors:
            process = subprocess.Popen(
                self._command(index, bootstrap),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self.nodes.append(Participant(process))
        threading.Thread(target=self._listen, args=(index, time.time()), daemon=True).start()

    def _command(self, index: int, bootstrap: Sequence[str]) -> list[str]:
        host = "127.0.0.1" if self.network is None else self.network.hosts[index]
        folder = str(self.folder / f"node{index}")
        command = [*NODE, folder, self._key, f"/ip4/{host}/tcp/0", *bootstrap]
        return command if self.network is None else self.network.command(index, *command)

    def _listen(self, index: int, started: float) -> None:
        node = self.nodes[index]
        assert node.process.stdout is not None
        for line in node.process.stdout:
            said = json.loads(line)
            match said["type"]:
                case "ready":
                    if said["heavy"]:
                        raise ConvergeError(f"a node without a model imported {said['heavy']}")
                    node.peer, node.address, node.ready_s = said["peer"], said["addrs"][0], said["at"] - started
                case "links":
                    node.links = said["count"]
                case "issued":
                    self.issued.put((index, said["seq"], said["started"]))
                case "peer":
                    if said["seq"] > node.known.get(said["peer"], (0, 0.0))[0]:
                        node.known[said["peer"]] = (said["seq"], said["at"])


def late(nodes: Sequence[Participant], peer: str, seq: int) -> int:
    """How many of these nodes do not know yet of a peer's record with this number."""
    return sum(node.known.get(peer, (0, 0.0))[0] < seq for node in nodes)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)]


def measure(crowd: Crowd, changes: int, seed: int) -> dict[str, Any]:
    """Start a crowd and make changes; the figures."""
    started = time.time()
    crowd.start()
    formed_s = time.time() - started
    crowd.settle()
    settled_s = time.time() - started
    processes = [psutil.Process(node.process.pid) for node in crowd.nodes]
    used = sum(sum(process.cpu_times()[:2]) for process in processes)
    began, dice = time.time(), random.Random(seed)
    took = []
    for number in range(changes):
        took.append(crowd.change(dice.randrange(crowd.size), number + 1))
        time.sleep(PAUSE_S)
    wall_s = time.time() - began
    busy = sum(sum(process.cpu_times()[:2]) for process in processes) - used
    memory = [process.memory_full_info() for process in processes]
    return {
        "nodes": crowd.size,
        "changes": changes,
        "seed": seed,
        "p50_s": round(percentile(took, 0.50), 3),
        "p99_s": round(percentile(took, 0.99), 3),
        "max_s": round(max(took), 3),
        "settled_s": round(settled_s, 1),
        "formed_s": round(formed_s, 1),
        "ready_s_first": round(crowd.nodes[0].ready_s, 2),
        "ready_s_max": round(max(node.ready_s for node in crowd.nodes), 1),
        "rss_mib": round(sum(info.rss for info in memory) / crowd.size / 2**20),
        "unique_mib": round(sum(info.uss for info in memory) / crowd.size / 2**20),
        "cores_busy": round(busy / wall_s, 2),
        "cores": os.cpu_count(),
    }


@click.command()
@click.option("--nodes", default=32, show_default=True, type=click.IntRange(2, 256))
@click.option("--changes", default=100, show_default=True, type=click.IntRange(1))
@click.option(
    "--limit", default=LIMIT_S, show_default=True, help="Seconds within which 99 % of changes are known by all."
)
@click.option("--seed", default=None, type=int, help="Who changes, in which order; random by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line on stdout.")
def main(nodes: int, changes: int, limit: float, seed: int | None, as_json: bool) -> None:
    """Let NODES processes find each other, make CHANGES, and say how soon all knew of them. Exit code 1: too late."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="kekahyde-converge-") as folder, Crowd(nodes, Path(folder)) as crowd:
        try:
            figures = measure(crowd, changes, seed)
        except (ConvergeError, queue.Empty) as exc:
            errors = [path.read_text()[-400:] for path in sorted(Path(folder).glob("*.err"))[:3]]
            click.echo(f"failed (seed {seed}): {exc}\n" + "\n".join(errors), err=True)
            sys.exit(1)
    good = figures["p99_s"] <= limit
    if as_json:
        click.echo(json.dumps(figures | {"good": good}))
    else:
        for name, value in figures.items():
            click.echo(f"{name:<14} {value}")
        click.echo(f"{'good' if good else 'TOO LATE'}: 99 % within {figures['p99_s']} s, limit {limit:g} s")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main(prog_name="scripts/converge")
