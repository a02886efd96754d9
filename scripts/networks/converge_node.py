"""One node of `scripts/converge`: a whole node without a model, which reports what it learns of others.

Lines on stdin: `change N` makes N the memory that it lends to weights, a fact of its record; `links` asks how many
links it has; the end of the input stops it. Lines on stdout are JSON: `ready`, `links`, `issued` (its own record's
number and when), `peer` (a peer's number, state and when it became known here). Times are `time.time()`: all
processes are on one machine.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from node.config import NodeConfig
from node.node import Node
from node.paths import DataDir
from protocol.link.admission import SwarmKey
from protocol.membership.actions import Changed, Forgotten
from protocol.multiaddr import parse_multiaddr


def say(kind: str, **facts: Any) -> None:
    # One write: the control plane's thread and the main thread both speak.
    sys.stdout.write(json.dumps({"type": kind, "at": time.time(), **facts}) + "\n")
    sys.stdout.flush()


def report(change: Changed | Forgotten) -> None:
    if isinstance(change, Changed):
        say("peer", peer=change.peer, state=change.state.name.lower(), seq=change.record.seq)


def main(folder: Path, key: str, listen: str, *bootstrap: str) -> None:
    directory = DataDir.open(folder)
    config = NodeConfig(
        directory.identity(),
        parse_multiaddr(listen),
        tuple(parse_multiaddr(text) for text in bootstrap),
        threads=1,
        swarm_key=SwarmKey.from_hex(key),
        state=folder,
    )
    node = Node(config, [])
    assert node.member is not None, "it has a folder for its state"
    node.member.watch(report)
    with node:
        modules = [name for name in ("torch", "transformers", "aiohttp") if name in sys.modules]
        say("ready", peer=node.peer_id, addrs=[str(address) for address in node.addresses], heavy=modules)
        for line in sys.stdin:
            if line.strip() == "links":
                say("links", count=len(node.registry.peers()))
                continue
            node.config = replace(node.config, memory_bytes=int(line.split()[1]))
            before, started = _seq(node), time.time()
            node.announce()
            while _seq(node) == before:
                time.sleep(0.0005)
            say("issued", seq=_seq(node), started=started)


def _seq(node: Node) -> int:
    record = None if node.member is None else node.member.record
    return 0 if record is None else record.seq


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
