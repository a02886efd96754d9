"""Start a node and keep it until a signal says otherwise."""

from __future__ import annotations

import json
import logging
import signal
import threading
from pathlib import Path

import click

from node.cli.narrate import say
from node.errors import ConfigError
from node.node import Node, NodeConfig
from node.paths import DataDir
from node.store.library import Library
from protocol.multiaddr import Multiaddr


def serve(
    data_dir: Path,
    listen: Multiaddr | None,
    bootstrap: tuple[Multiaddr, ...],
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run a node in the foreground; returns after SIGTERM or SIGINT."""
    directory = DataDir.open(data_dir)
    lock = directory.lock()
    if lock is None:
        raise ConfigError(
            f"another node runs on {data_dir}: stop it, or give this one a directory of its own with --data-dir"
        )
    # What becomes of a node's links is said once a change; a run says it itself.
    logging.getLogger("node.transport.dialler").setLevel(logging.INFO)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with lock:
        config = NodeConfig(directory.identity(), listen, bootstrap, threads)
        with Node(config, [Library(directory.models).resolve(model)]) as node:
            _announce(node, as_json)
            stopping.wait()
            say("stopping")


def _announce(node: Node, as_json: bool) -> None:
    addresses = [str(address) for address in node.addresses]
    if as_json:
        click.echo(json.dumps({"type": "ready", "peer_id": node.peer_id, "addrs": addresses}))
        return
    for line in addresses or [node.peer_id]:
        click.echo(line)
    say(f"node {node.peer_id} is ready, kernels {node.kernels.name} on {node.kernels.threads} threads")
    if node.kernels.note:
        say(f"note: {node.kernels.note}")
    if addresses:
        say("others reach it with --bootstrap and an address above; Ctrl-C stops it")
    else:
        say("nobody can dial in: it serves the peers that it dials itself; Ctrl-C stops it")
