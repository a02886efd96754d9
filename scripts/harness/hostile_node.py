"""A node that breaks its promises on purpose: the other side of every test of trust.

It is the real node with one part replaced, so that whatever is not said to be faulty is genuine. Every wrong result
comes with a correct digest of itself: a liar can hash a lie.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from msgspec.structs import replace

import node.transport.listener as listener
from node.cli.options import AddressType
from node.cli.stop_signal import StopSignal
from node.config import NodeConfig
from node.node import Node
from node.paths import DataDir
from node.serving.worker import Answer, LinearWorker, Parts
from node.store.library import Library
from node.swarm.credentials import load_swarm
from node.trust import PairedDevices
from protocol.codec import encode_message
from protocol.linear.field import Elements, P
from protocol.linear.messages import LinearResult, Role, UnitRequest
from protocol.linear.quick import ShareHeader
from protocol.linear.verification import result_digest
from protocol.link.hello import Hello
from protocol.link.messages import Pong
from protocol.message import ErrorCode, ErrorReply
from protocol.multiaddr import Multiaddr
from protocol.spans.binding import span_digest
from protocol.spans.messages import SpanResult, SpanStep
from protocol.work import WorkRequest
from scripts.harness.hostile_blobs import BLOB_FAULTS, spoil_blobs

LIES = ("bit", "once", "row", "replay", "other", "range", "digest")
FAULTS = ("none", "slow", "later", "error-13", "junk", "version", *(f"lie-{lie}" for lie in LIES), *BLOB_FAULTS)
ROLES = {"any": (Role.PAD, Role.SHARE, Role.PLAIN), "pad": (Role.PAD,), "share": (Role.SHARE,)}
JUNK_BEFORE_EACH = 20
JUNK_BYTES = 128 * 1024


class FaultyWorker(LinearWorker):
    """The real worker, whose answers are spoilt from the `after`-th on, in the roles in which it is faulty."""

    def __init__(self, node: Node, fault: str, after: int, delay_s: float, role: str, until: int | None) -> None:
        super().__init__(node.kernels, node.hosted.weights_of, spans=node.make_spans())
        self._fault = fault
        self._after = after
        self._until = until
        self._delay_s = delay_s
        self._roles = ROLES[role]
        self._answered = 0
        self._earlier: list[LinearResult] = []

    def spoils(self, request: WorkRequest) -> bool:
        """Whether the answer to this request is one that it spoils."""
        if not isinstance(request, UnitRequest):
            return False
        over = self._until is not None and self._answered > self._until
        return self._answered > self._after and not over and request.binding.role in self._roles

    def together(self, request: WorkRequest, other: WorkRequest) -> bool:
        return False  # it lies to each alone

    def product(self, share: ShareHeader, rows: Elements, most_s: float) -> None:
        """None: every answer is one of `parts`."""

    def parts(self, request: WorkRequest) -> Parts:
        honest = yield from super().parts(request)
        self._answered += 1
        if isinstance(honest, SpanResult) and isinstance(request, SpanStep):
            return self._span_lie(request, honest)
        if not (isinstance(honest, LinearResult) and isinstance(request, UnitRequest) and self.spoils(request)):
            self._remember(honest)
            return honest
        match self._fault:
            case "slow":
                time.sleep(self._delay_s)
            case "later":
                time.sleep(self._delay_s * (self._answered - self._after))
            case "error-13":
                return ErrorReply(ErrorCode.INTERNAL, "something went wrong here")
        if not self._fault.startswith("lie-"):
            return honest
        lie = self._lie(request, honest)
        self._remember(honest)
        return lie

    def _span_lie(self, step: SpanStep, honest: SpanResult) -> SpanResult:
        """One bit of one element is another, in every step or in one; the digest is right."""
        wrong = self._fault == "lie-bit" or (self._fault == "lie-once" and self._answered == self._after + 1)
        if not wrong or self._answered <= self._after:
            return honest
        rows = np.array(honest.rows)
        rows[-1].view(np.uint32)[0] ^= 1
        return replace(honest, rows=rows, digest=span_digest(step.binding, rows))

    def _remember(self, result: Answer) -> None:
        if isinstance(result, LinearResult):
            self._earlier = [*self._earlier[-63:], result]

    def _lie(self, request: UnitRequest, honest: LinearResult) -> LinearResult:
        rows: Elements = np.array(honest.rows)
        same_shape = [earlier for earlier in self._earlier if earlier.rows.shape == rows.shape]
        match self._fault:
            case "lie-bit":
                rows[-1, -1] ^= 1
            case "lie-row":
                rows[len(rows) // 2] = np.roll(rows[len(rows) // 2], 1)
            case "lie-replay":
                return same_shape[-1] if same_shape else replace(honest, digest=bytes(32))
            case "lie-other":
                rows = np.array(same_shape[0].rows) if same_shape else rows[::-1] ^ np.uint32(1)
            case "lie-range":
                rows[0, 0] = np.uint32(P) + rows[0, 0]  # the same residue, not canonical
            case "lie-digest":
                return replace(honest, digest=bytes(32))
        return replace(honest, rows=rows, digest=result_digest(request.binding, rows))


class HostileNode(Node):
    """A node with a faulty worker, or one that speaks another version."""

    def __init__(
        self,
        config: NodeConfig,
        models: list[Any],
        fault: str,
        after: int,
        delay_s: float,
        role: str = "any",
        until: int | None = None,
    ) -> None:
        self._fault, self._after, self._delay_s, self._role, self._until = fault, after, delay_s, role, until
        super().__init__(config, models)
        if fault in BLOB_FAULTS:
            spoil_blobs(self, fault, delay_s)
        if fault == "junk":
            junk_before_answers(self)

    def make_worker(self) -> LinearWorker:
        return FaultyWorker(self, self._fault, self._after, self._delay_s, self._role, self._until)

    def hello(self) -> Hello:
        hello = super().hello()
        return replace(hello, versions=(2,)) if self._fault == "version" else hello


def junk_before_answers(hostile: HostileNode) -> None:
    """Before each answer that it spoils, send results that nobody asked for, under ids that nobody gave."""
    plane, worker = hostile.data, hostile.worker
    reply = plane._computing._reply
    numbers = np.zeros((1, JUNK_BYTES // 4), dtype=np.uint32)
    junk = LinearResult(bytes(32), 1, numbers)

    def reply_with_junk(job: Any, answer: Any) -> None:
        if isinstance(worker, FaultyWorker) and worker.spoils(job.request):
            for _ in range(JUNK_BEFORE_EACH):
                frames = encode_message(junk, secrets.randbits(62))
                plane._outbox.send(job.peer_id, job.socket, job.route, frames)
        reply(job, answer)

    plane._computing._reply = reply_with_junk


def delay_pongs(delay_s: float) -> None:
    """Answer every ping so much later, as if this node were far away."""
    send = listener.Listener.send

    def send_later(self: Any, route: bytes, message: Any, message_id: int) -> bool:
        if isinstance(message, Pong):
            asyncio.get_running_loop().call_later(delay_s, send, self, route, message, message_id)
            return True
        return send(self, route, message, message_id)

    listener.Listener.send = send_later  # type: ignore[method-assign]


@click.command()
@click.option("--fault", type=click.Choice(FAULTS), default="none")
@click.option("--after", type=int, default=0, help="Answers that are still honest.")
@click.option("--until", type=int, default=None, help="The last answer that is spoilt.")
@click.option("--delay", type=float, default=1.0, help="Seconds, for `slow`, `later` (a step), `slow-pieces`.")
@click.option("--role", type=click.Choice(sorted(ROLES)), default="any", help="The role in which answers are faulty.")
@click.option("--pong-delay", type=float, default=0.0, help="Seconds by which pings are answered late.")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--listen", type=AddressType(allows_none=True), default="/ip4/127.0.0.1/tcp/0")
@click.option("--bootstrap", type=AddressType(needs_peer=True), multiple=True)
@click.option("--model", default="story")
@click.option("--threads", type=int, default=1)
@click.option("--json", "as_json", is_flag=True)
@click.option("--headless", is_flag=True)
@click.option("-v", "--verbose", count=True)
def main(
    fault: str,
    after: int,
    until: int | None,
    delay: float,
    role: str,
    pong_delay: float,
    data_dir: Path,
    listen: Multiaddr | None,
    bootstrap: tuple[Multiaddr, ...],
    model: str,
    threads: int,
    as_json: bool,
    headless: bool,
    verbose: int,
) -> None:
    """Run a node that misbehaves in one way."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING)
    if pong_delay:
        delay_pongs(pong_delay)
    directory = DataDir.open(data_dir)
    stopping = StopSignal()
    config = NodeConfig(
        directory.identity(),
        listen,
        bootstrap,
        threads,
        swarm_key=load_swarm(directory.path, os.environ).key,
        state=directory.path,
        paired=PairedDevices(directory.identity(), directory.path),
    )
    models = [Library(directory.models).resolve(model)]
    with HostileNode(config, models, fault, after, delay, role, until) as hostile:
        addresses = [] if hostile.address is None else [str(hostile.address)]
        print(json.dumps({"type": "ready", "peer_id": hostile.peer_id, "addrs": addresses}), flush=True)
        stopping.wait()


if __name__ == "__main__":
    main()
