"""A worker whose received messages are also given to the process that started it: what the audit attacks.

It is the real node with the real worker. In its own process, this module replaces the function with which both planes
open messages by one that copies them first. Nothing else in the program can do that: there is no option, no variable
and no message for it. The copies go into a pipe, and never to a disk or a log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import node.serving.reception as reception
import node.transport.dialler as dialler
import node.transport.listener as listener
from node.config import NodeConfig
from node.node import Node
from node.paths import DataDir
from node.process.core_dumps import forbid_core_dumps
from node.serving.at_once import AtOnce, Send
from node.serving.inbox import Unopened
from node.serving.native_shares import NativeShares
from node.serving.worker import LinearWorker
from node.store.library import Library
from node.swarm.credentials import load_swarm
from protocol import cbor
from protocol.envelope import Frame
from protocol.identity import PeerId
from protocol.linear.quick import ShareHeader
from protocol.multiaddr import parse_multiaddr

LISTEN = "/ip4/127.0.0.1/tcp/0"
LENGTH_BYTES = 4
OPENERS = (("control", listener), ("control", dialler), ("data", reception))
"""Every module that opens messages, and the plane of the messages that it opens; `AtOnce` opens some of its own."""

Decode = Callable[[Sequence[Any], int], Any]


class Tap:
    """Writes records to a pipe: `[plane, nanoseconds, frames]` as CBOR behind its length."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def install(self) -> None:
        """From now on every message that this process opens is written before it is answered."""
        for plane, module in OPENERS:
            vars(module)["decode_message"] = self._tapped(plane, vars(module)["decode_message"])
        begin = AtOnce.__init__

        def tap(
            at_once: AtOnce,
            worker: LinearWorker,
            is_shared: Callable[[PeerId], bool],
            send: Send,
            shares: NativeShares | None = None,
        ) -> None:
            def write_and_send(message: Unopened, share: ShareHeader, frames: list[Frame]) -> None:
                self._write("data", [frame.buffer for frame in message.frames])
                send(message, share, frames)

            begin(at_once, worker, is_shared, write_and_send)  # and without C, which writes nothing

        AtOnce.__init__ = tap  # type: ignore[method-assign,assignment]

    def mark(self) -> None:
        """Tell the reader that everything before was written."""
        self._write("mark", [])

    def _tapped(self, plane: str, decode: Decode) -> Decode:
        def write_and_decode(frames: Sequence[Any], max_header_bytes: int) -> Any:
            self._write(plane, frames)
            return decode(frames, max_header_bytes)

        return write_and_decode

    def _write(self, plane: str, frames: Sequence[Any]) -> None:
        record = cbor.encode([plane, time.monotonic_ns(), [bytes(frame) for frame in frames]])
        with self._lock:
            self._pipe.write(len(record).to_bytes(LENGTH_BYTES, "little") + record)
            self._pipe.flush()


def main(data_dir: str, models_dir: str, model: str, pipe: str) -> None:
    """Serve until stdin ends; every line on stdin is answered by a mark in the pipe."""
    forbid_core_dumps()
    tap = Tap(os.fdopen(int(pipe), "wb"))
    tap.install()
    directory = DataDir.open(Path(data_dir))
    config = NodeConfig(
        directory.identity(),
        parse_multiaddr(LISTEN),
        threads=1,
        swarm_key=load_swarm(directory.path, os.environ).key,
        state=directory.path,
    )
    with Node(config, [Library(Path(models_dir)).resolve(model)]) as worker:
        ready = {"peer_id": worker.peer_id, "addrs": [str(address) for address in worker.addresses]}
        print(json.dumps(ready), flush=True)
        for _line in sys.stdin:
            tap.mark()


if __name__ == "__main__":
    main(*sys.argv[1:])
