"""A serving peer that turns on its client: the real node with a data plane that says more than it is asked for.

It serves honestly until its client has fallen silent (or, for `junk`, all the time), then does one thing:

    push     40 results that nobody asked for, then its end: the crash of an idle client
    reset    the same, but every connection of its data port is reset and it lives on, to do it again
    pour     results of 8 MiB that nobody asked for, for as long as they are taken: the memory of an idle client
    frames   one message of 800 frames of 4 MiB: the memory of an idle client
    junk     20 junk results of 128 KiB before each answer: the time of an answer
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import zmq

import node.node as composition
from node.cli.options import AddressType
from node.cli.stop_signal import StopSignal
from node.config import NodeConfig
from node.node import Node
from node.paths import DataDir
from node.serving.data_plane import DataPlane
from node.serving.inbox import Unopened
from node.serving.work_queue import Job
from node.store.library import Library
from node.swarm.credentials import load_swarm
from protocol.codec import encode_message
from protocol.envelope import Frame
from protocol.linear.messages import LinearResult
from protocol.linear.quick import ShareHeader
from protocol.message import Message
from protocol.multiaddr import Multiaddr
from scripts.harness.connections import reset_connections

DEEDS = ("push", "reset", "pour", "frames", "junk")
IDLE_S = 1.0
"""A client that has asked for nothing for so long is idle."""
PUSHED = 40
"""More than a client's receive queue holds (32)."""
TAKEN_S = 0.5
"""Time for what was pushed to arrive before the connection ends."""
POURED_A_TURN = 8
FRAMES = 800
FRAME_BYTES = 4 << 20
JUNK_RESULTS = 20
TICK_S = 0.1
NOBODYS_ID = 1 << 60
TURNED = "it turns on its client"
"""Said on stderr once: whoever tests a client must know that it was attacked."""


def unasked(rows: int, columns: int) -> list[Any]:
    """Frames of a result that nobody asked for."""
    result = LinearResult(bytes(32), 1, np.zeros((rows, columns), dtype=np.uint32))
    return list(encode_message(result, NOBODYS_ID))


class TurningPlane(DataPlane):
    """The data plane of a peer that turns on whoever asked it last."""

    deed = DEEDS[0]
    _client: bytes | None = None
    _asked = 0.0
    _port = 0
    _pushed = 0
    _has_turned = False

    def _turn(self) -> bool:
        goes_on = super()._turn()
        if self._client is not None and time.monotonic() - self._asked > IDLE_S and self.deed != "junk":
            if not self._has_turned:
                click.echo(TURNED, err=True)
            self._has_turned = True
            self._turn_on(self._client)
        return goes_on

    def _computed(self, job: Job, answer: Message) -> None:
        self._was_asked(job.route)
        super()._computed(job, answer)

    def _answered(self, message: Unopened, share: ShareHeader, frames: list[Frame]) -> None:
        self._was_asked(message.route)
        super()._answered(message, share, frames)

    def _was_asked(self, route: bytes | None) -> None:
        self._client, self._asked = route, time.monotonic()
        if self.deed == "junk" and route is not None:
            for _ in range(JUNK_RESULTS):
                self._push(route, unasked(32, 1024))

    def _turn_on(self, client: bytes) -> None:
        match self.deed:
            case "push" | "reset":
                while self._pushed < PUSHED and self._push(client, unasked(32, 1024)):
                    self._pushed += 1
                if self._pushed == PUSHED:
                    self._client, self._pushed = None, 0
                    threading.Timer(TAKEN_S, self._end).start()
            case "pour":
                for _ in range(POURED_A_TURN):
                    self._push(client, unasked(1024, 2047))
            case "frames":
                self._client = None
                self._push(client, [*unasked(1, 1)[:1], *[bytes(FRAME_BYTES)] * FRAMES])

    def _end(self) -> None:
        if self.deed == "push":
            os._exit(0)
        reset_connections(os.getpid(), {self._port})

    def start(self, listen: Multiaddr | None) -> int:
        self._port = super().start(listen)
        return self._port

    def _timeout_s(self) -> float | None:
        """It wakes now and then although nobody asks."""
        usual_s = super()._timeout_s()
        return TICK_S if usual_s is None else min(usual_s, TICK_S)

    def _push(self, client: bytes, frames: list[Any]) -> bool:
        """Whether it is on its way; else the queue to the client is full, or it is gone."""
        assert self._router is not None, "somebody dialled in"
        try:
            self._router.send_multipart([client, *frames], zmq.DONTWAIT, copy=False)
        except zmq.ZMQError:
            return False
        return True


@click.command()
@click.option("--deed", type=click.Choice(DEEDS), required=True)
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--listen", type=AddressType(allows_none=True), default="/ip4/127.0.0.1/tcp/0")
@click.option("--bootstrap", type=AddressType(needs_peer=True), multiple=True)
@click.option("--model", default="story")
@click.option("--threads", type=int, default=1)
@click.option("--json", "as_json", is_flag=True)
@click.option("--headless", is_flag=True)
@click.option("-v", "--verbose", count=True)
def main(
    deed: str,
    data_dir: Path,
    listen: Multiaddr | None,
    bootstrap: tuple[Multiaddr, ...],
    model: str,
    threads: int,
    as_json: bool,
    headless: bool,
    verbose: int,
) -> None:
    """Run a node that turns on its client."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING)
    TurningPlane.deed = deed
    setattr(composition, "DataPlane", TurningPlane)  # noqa: B010  the node composes this plane in place of its own
    directory, stopping = DataDir.open(data_dir), StopSignal()
    key = load_swarm(directory.path, os.environ).key
    config = NodeConfig(directory.identity(), listen, bootstrap, threads, swarm_key=key, state=directory.path)
    with Node(config, [Library(directory.models).resolve(model)]) as serving:
        addresses = [] if serving.address is None else [str(serving.address)]
        print(json.dumps({"type": "ready", "peer_id": serving.peer_id, "addrs": addresses}), flush=True)
        stopping.wait()


if __name__ == "__main__":
    main()
