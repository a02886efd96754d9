"""`scripts/bench transfer`: a model from one and from two peers, beside a plain copy and a raw TCP copy of its files.

Everything is done in one run, round after round, and ends on the disk (fsync). All processes share this machine.
The last lines say what a stream of pieces does to a chunk: round trips of one row to a node that serves a pull.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import numpy as np
import psutil
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from node.config import NodeConfig
from node.gateway.client.client import call_node
from node.kernels import select_kernels
from node.node import Node
from node.store.hf.config import parse_config
from node.store.hf.layout import tensor_shapes
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel
from node.transport.channel import Channel, open_channel
from protocol.identity import Identity
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.harness.swarm import NodeProcess, Swarm

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
LAYER_BYTES = 63_000_000
BLOCK_BYTES = 1 << 20
MIB = 1 << 20
POLL_S = 0.01
ROUND_TRIPS = 200
PACE_S = 0.005
LEAST_URGENT = 19


@dataclass(slots=True)
class Case:
    """One way to bring the model, the seconds that it took, and the bytes that were moved for it."""

    name: str
    run: Callable[[Path], int]
    seconds: list[float] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)


def make_model(folder: Path, num_layers: int, **sizes: int) -> StoredModel:
    """A random model in a store."""
    raw = {**CONFIG, "num_hidden_layers": num_layers, **sizes}
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps(raw))
    generator = np.random.default_rng(0)
    shapes = tensor_shapes(parse_config(raw, {}, "bench"))
    tensors = {name: generator.standard_normal(shape, dtype=np.float32).astype(np.float16) for name, shape in shapes}
    save_file(tensors, checkpoint / "model.safetensors")
    words = {f"w{number}": number for number in range(CONFIG["vocab_size"])}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(checkpoint / "tokenizer.json"))
    imported = import_checkpoint(checkpoint, folder / "models")
    shutil.rmtree(checkpoint)
    return StoredModel(imported.path)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sync_all(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def plain_copy(source: Path, target: Path) -> int:
    """What `cp -r` does, and a sync."""
    shutil.copytree(source, target)
    sync_all(target)
    return size_of(source)


def tcp_copy(source: Path, target: Path) -> int:
    """The files one after the other through one loopback connection, unencrypted and unverified."""
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=_send_files, args=(server, paths))
        sender.start()
        with socket.create_connection(server.getsockname()) as connection:
            for path in paths:
                _receive(connection, target / path.relative_to(source), path.stat().st_size)
        sender.join()
    sync_all(target)
    return size_of(source)


def _send_files(server: socket.socket, paths: list[Path]) -> None:
    connection, _address = server.accept()
    with connection:
        for path in paths:
            with path.open("rb") as file:
                connection.sendfile(file)


def _receive(connection: socket.socket, path: Path, num_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while num_bytes:
            block = connection.recv(min(BLOCK_BYTES, num_bytes))
            file.write(block)
            num_bytes -= len(block)


class Pulls:
    """Nodes without the model, one for each pull, that are linked to some of the sources."""

    def __init__(self, swarm: Swarm, model_id: str) -> None:
        self._swarm, self._model_id = swarm, model_id

    def ready(self, num_sources: int) -> NodeProcess:
        """A node that has its links; a node with a key of its own would be no member, so it has the swarm's."""
        bootstrap = self._swarm.bootstrap(range(num_sources))
        self._swarm.start(1, options=["--model", "none", "--no-mdns", *bootstrap])
        node = self._swarm.nodes[-1]
        while sum(peer["connected"] for peer in call_node(node.data_dir, "peers")["peers"]) < num_sources:
            time.sleep(POLL_S)
        return node

    def pull(self, node: NodeProcess) -> dict[str, Any]:
        """Have it fetch the model; the transfer at its end."""
        job = call_node(node.data_dir, "pull", model=self._model_id)
        while job["state"] == "running":
            time.sleep(POLL_S)
            job = call_node(node.data_dir, "transfers")["transfers"][-1]
        if job["state"] != "done":
            raise click.ClickException(f"{job['error']}: {node.narration()}")
        return job

    def done_with(self, node: NodeProcess) -> None:
        node.stop()
        self._swarm.nodes.remove(node)
        shutil.rmtree(node.data_dir)


@contextmanager
def client_of(swarm: Swarm, source: NodeProcess) -> Iterator[Channel]:
    """A connection to a source's data plane, as a session has it."""
    identity = Identity.from_seed(secrets.token_bytes(32))
    key = SwarmKey.from_hex(swarm.key)
    config = NodeConfig(identity, None, (parse_multiaddr(source.address),), 1, swarm_key=key)
    with Node(config, [], select_kernels(1)) as node:
        node.registry.wait_settled([source.address], 1, 10.0)
        channel = open_channel(node.secure, node.data, node.registry.usable()[0])
        channel.wait_connected(5.0)
        try:
            yield channel
        finally:
            channel.close()


def round_trip_ms(channel: Channel, stored: StoredModel, number: int) -> float:
    """One row through one small unit."""
    ref = next(ref for ref in stored.units if ref.kind == "o")
    tiles = -(-ref.num_outputs // 512)
    binding = ChunkBinding(bytes(16), number, stored.model_id_bytes, ref.sha256, Role.PAD, 0, 1, 0, tiles)
    started = time.perf_counter()
    channel.send(Linear(binding, seed=bytes(32)), number)
    while True:
        assert channel.socket is not None, "nobody closed it"
        channel.socket.poll(5000)
        received = channel.receive()
        if received is not None and isinstance(received.message, LinearResult):
            return 1000 * (time.perf_counter() - started)


def measured_trips(channel: Channel, stored: StoredModel, while_running: Callable[[], bool]) -> list[float]:
    trips: list[float] = []
    while while_running() and len(trips) < 20 * ROUND_TRIPS:
        trips.append(round_trip_ms(channel, stored, len(trips) + 1))
        time.sleep(PACE_S)
    return trips


@click.command()
@click.option("--mib", type=int, default=128, show_default=True, help="Size of the model, about.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(mib: int, rounds: int, as_json: bool) -> None:
    """Bring a model in every way, compare, and measure chunks while one is brought."""
    with tempfile.TemporaryDirectory(prefix="kekahyde-bench-") as name:
        folder = Path(name)
        stored = make_model(folder, max(1, round(mib * MIB / LAYER_BYTES)))
        with Swarm(model=str(stored.path)) as swarm:
            swarm.start(2, options=["--no-mdns"])
            pulls = Pulls(swarm, stored.model_id)
            cases = [
                Case("plain copy (cp)", lambda target: plain_copy(stored.path, target)),
                Case("raw TCP copy", lambda target: tcp_copy(stored.path, target)),
            ]
            pulled = Case("pull from 2 peers", lambda target: 0)
            for number in range(rounds):
                for case in cases:
                    target = folder / f"copy{number}"
                    started = time.perf_counter()
                    case.moved.append(case.run(target))
                    case.seconds.append(time.perf_counter() - started)
                    shutil.rmtree(target)
                node = pulls.ready(2)
                started = time.perf_counter()
                pulled.moved.append(pulls.pull(node)["fetched_bytes"])
                pulled.seconds.append(time.perf_counter() - started)
                pulls.done_with(node)
            trips = latencies(swarm, stored, pulls)
        report([*cases, pulled], trips, size_of(stored.path), as_json)


def latencies(swarm: Swarm, stored: StoredModel, pulls: Pulls) -> dict[str, list[float]]:
    """Round trips of chunks at a source, idle and while it gives pieces away.

    Whoever pulls gets what processor time is left over: on devices of their own the two would not compete for it.
    """
    node = pulls.ready(2)
    psutil.Process(node.process.pid).nice(LEAST_URGENT)
    with client_of(swarm, swarm.nodes[0]) as channel:
        started = iter(range(ROUND_TRIPS))
        measured_trips(channel, stored, lambda: next(started, None) is not None)
        again = iter(range(ROUND_TRIPS))
        idle = measured_trips(channel, stored, lambda: next(again, None) is not None)
        pulling = threading.Thread(target=pulls.pull, args=(node,))
        pulling.start()
        busy = measured_trips(channel, stored, pulling.is_alive)
        pulling.join()
    pulls.done_with(node)
    return {"chunk alone": idle, "chunk during a pull": busy}


def report(cases: list[Case], trips: dict[str, list[float]], size: int, as_json: bool) -> None:
    fastest = median(cases[0].seconds)
    rows = [
        {
            "name": case.name,
            "seconds": median(case.seconds),
            "mib_per_s": size / MIB / median(case.seconds),
            "times_cp": median(case.seconds) / fastest,
            "bytes_ratio": median(case.moved) / size,
        }
        for case in cases
    ]
    waits = [
        {"name": name, "p50_ms": median(ms), "p95_ms": quantiles(ms, n=20)[18], "count": len(ms)}
        for name, ms in trips.items()
    ]
    if as_json:
        click.echo(json.dumps({"bytes": size, "copies": rows, "chunks": waits}))
        return
    console = Console(highlight=False)
    console.print(
        f"a model of {size / MIB:.0f} MiB, {os.cpu_count()} cores, all processes on this machine, with fsync"
    )
    table = Table("", "seconds", "MiB/s", "x cp", "bytes / model", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        figures = (f"{row['seconds']:.2f}", f"{row['mib_per_s']:.0f}", f"{row['times_cp']:.1f}")
        table.add_row(str(row["name"]), *figures, f"{row['bytes_ratio']:.3f}")
    console.print(table)
    for wait in waits:
        console.print(
            f"{wait['name']:<22} p50 {wait['p50_ms']:.2f} ms, p95 {wait['p95_ms']:.2f} ms ({wait['count']})"
        )


if __name__ == "__main__":
    main(prog_name="scripts/bench transfer")
