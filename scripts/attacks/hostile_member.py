"""A member of the swarm that loads one node: it has the swarm's key, says hello, and asks for all that it can get.

Each *identity* of it is a member of its own: a key, control links that are kept alive, and for each attack a new
connection to a data plane. `scripts/members` and the tests start it as a process and tell it on stdin, a line of JSON
each time, whom to load with what; it answers with a line of counts when it was told to stop.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import select
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import zmq

from node.cli.options import AddressType
from node.errors import PeerRefusedError
from node.paths import DataDir
from node.store.library import Library
from node.store.stored import StoredModel
from node.swarm.credentials import load_swarm
from node.transport.control import ControlPlane
from node.transport.link import new_nonce
from node.transport.registry import PeerRegistry
from node.transport.sockets import MAX_DATA_FRAME_BYTES, SecureContext
from protocol import cbor
from protocol.codec import decode_message, encode_message
from protocol.envelope import Frame
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, peer_id_of
from protocol.limits import CACHE_BYTES, MAGIC, MAX_CHUNK_ROWS, MAX_DATA_HEADER_BYTES, PROTOCOL_VERSION, TILE_OUTPUTS
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.link.admission import SwarmKey
from protocol.link.hello import Hello
from protocol.message import Cancel, ErrorReply, Message
from protocol.multiaddr import Multiaddr
from protocol.spans.binding import SpanBinding, SpanRows
from protocol.spans.messages import SpanPass
from protocol.spans.onward import SEAL_BYTES, Onward, most_onward
from protocol.transfer.messages import BlobAsk, Credit, PieceAsk

LINK_TIMEOUT_S = 15.0
CALM_S = 5.0
"""How long the end of an attack may take."""
MESSAGES_A_STEP = 64
UNKNOWN_TYPE = 4321
ENOUGH_CREDIT = 1 << 40
PASS_PARTS = 20


@dataclass(frozen=True, slots=True)
class Attack:
    """What is sent over and over, and how."""

    frames: Callable[[StoredModel, int], list[Frame]]
    """Frames of the request with this number."""
    window: int | None
    """Requests without an answer at a time; None: as many as the connection takes."""
    reads: bool = True
    """Whether answers are read at all."""
    computes: bool = True
    """Whether the node computes something, which can be cancelled."""


def _linear(num_rows: int, role: Role) -> Callable[[StoredModel, int], list[Frame]]:
    """Requests for the unit with the largest answers."""
    made: dict[bytes, Linear] = {}

    def request(model: StoredModel) -> Linear:
        ref = max(model.manifest.units, key=lambda unit: (unit.layer is not None, unit.num_outputs))
        tiles = -(-ref.num_outputs // TILE_OUTPUTS)
        binding = ChunkBinding(bytes(16), 1, model.model_id_bytes, ref.sha256, role, 0, num_rows, 0, tiles)
        if role is Role.PAD:
            return Linear(binding, seed=bytes(32))
        return Linear(binding, rows=np.ones((num_rows, ref.num_inputs), dtype=np.uint32))

    def frames(model: StoredModel, number: int) -> list[Frame]:
        if model.model_id_bytes not in made:
            made[model.model_id_bytes] = request(model)
        return encode_message(made[model.model_id_bytes], number)

    return frames


def _same(*messages: Message) -> Callable[[StoredModel, int], list[Frame]]:
    return lambda _model, number: encode_message(messages[number % len(messages)], number)


def _cheap(_model: StoredModel, number: int) -> list[Frame]:
    """Cancels, unknown types, headers that are no CBOR, headers of 4 KiB, in turn."""
    match number % 4:
        case 0:
            return encode_message(Cancel(number), number)
        case 1:
            return [MAGIC + cbor.encode({0: UNKNOWN_TYPE, 1: number, 4: {}})]
        case 2:
            return [MAGIC + b"\xff" * 64]
        case _:
            filling: dict[int, dict[int, int]] = {key: {} for key in range(900)}
            return [(MAGIC + cbor.encode({0: 16, 1: number, 4: filling}))[:MAX_DATA_HEADER_BYTES]]


def _pieces(model: StoredModel, number: int) -> list[Frame]:
    """Asks for the first piece of a unit, with credit for all of it."""
    unit = model.manifest.units[0].sha256
    if number == 1:
        return encode_message(Credit(ENOUGH_CREDIT), number)
    ask = BlobAsk(unit) if number % 4 == 0 else PieceAsk(unit, 0)
    return encode_message(ask, number)


def _passes(model: StoredModel, number: int) -> list[Frame]:
    """Rows handed on that nobody sealed, with as long a way as a header holds."""
    parts = tuple(SpanRows(bytes([index] * CACHE_BYTES), 0, 1) for index in range(PASS_PARTS))
    binding = SpanBinding(number, model.model_id_bytes, 0, 1, parts)
    onward = Onward(peer_id_of(bytes(32)), binding, bytes(SEAL_BYTES))
    rows = np.ones((PASS_PARTS, model.config.hidden_size), np.float32)
    return encode_message(SpanPass(binding, rows, (onward,) * most_onward(PASS_PARTS), bytes(SEAL_BYTES)), number)


ATTACKS: dict[str, Attack] = {
    "shares": Attack(_linear(MAX_CHUNK_ROWS, Role.SHARE), 64),
    "seeds": Attack(_linear(MAX_CHUNK_ROWS, Role.PAD), 512),
    "rows": Attack(_linear(1, Role.PAD), 512),
    "cheap": Attack(_cheap, None, computes=False),
    "cancels": Attack(_same(Cancel(1)), None, computes=False),
    "unread": Attack(_linear(MAX_CHUNK_ROWS, Role.PAD), None, reads=False),
    "pieces": Attack(_pieces, 32),
    "passes": Attack(_passes, None, computes=False),
}


class HostileMember:
    """One identity of the attacker, linked to all targets; a context manager."""

    def __init__(self, targets: Sequence[Multiaddr], swarm: SwarmKey | None, model: StoredModel) -> None:
        self._targets, self._model = targets, model
        self.registry = PeerRegistry()
        self.secure = SecureContext(Identity.from_seed(secrets.token_bytes(32)), swarm=swarm)
        self._control = ControlPlane(self.secure, self.registry, self._hello, swarm=swarm)

    def _hello(self) -> Hello:
        key = self.secure.identity.public_key
        return Hello(key, (PROTOCOL_VERSION,), "hostile", (), 0, (), 0, (1,), new_nonce())

    def __enter__(self) -> HostileMember:
        self.secure.__enter__()
        self._control.start(None, self._targets)
        self.registry.wait_settled([str(target) for target in self._targets], 0, LINK_TIMEOUT_S)
        peers = {peer.peer_id: peer for peer in self.registry.usable()}
        if len(peers) < len(self._targets):
            raise click.ClickException(f"not let in: {self.registry.outcomes()}")
        self._peers = [peers[target.peer_id] for target in self._targets if target.peer_id is not None]
        return self

    def __exit__(self, *_exc: object) -> None:
        self._control.stop()
        self.secure.__exit__()

    def begin(self, target: int, attack: Attack) -> Load | None:
        """A new connection to a target, over which an attack runs; None where this member is kept out."""
        peer = self._peers[target]
        try:
            self.secure.knocks.knock(peer.peer_id, peer.host, peer.hello.data_port).result(LINK_TIMEOUT_S)
        except PeerRefusedError:
            return None
        # On a busy machine a link may break, and is dialled again.
        if not self.registry.wait_up(peer.peer_id, LINK_TIMEOUT_S):
            return None
        socket = self.secure.context.socket(zmq.DEALER)
        self.secure.dial(socket, peer.peer_id, MAX_DATA_FRAME_BYTES)
        assert peer.data_endpoint is not None
        socket.connect(peer.data_endpoint)
        return Load(socket, attack, self._model)


class Load:
    """An attack over one connection."""

    def __init__(self, socket: zmq.Socket[bytes], attack: Attack, model: StoredModel) -> None:
        self.socket, self._attack, self._model = socket, attack, model
        self._waiting: set[int] = set()
        self._unsent: tuple[int, list[Frame]] | None = None
        self._numbers = itertools.count(1)
        self._last_id = 0
        self.counts: Counter[str] = Counter()

    def step(self) -> bool:
        """Send what the window and the connection let through, read what has come; False where nothing moved."""
        moved = False
        for _ in range(MESSAGES_A_STEP):
            if self._attack.window is not None and len(self._waiting) >= self._attack.window:
                break
            if not self._send():
                break
            moved = True
        return (self._attack.reads and self._read()) or moved

    def end(self) -> None:
        """Take everything back, so that nothing of this attack is computed during the next one."""
        self.socket.sndtimeo = self.socket.rcvtimeo = int(1000 * CALM_S)
        with contextlib.suppress(zmq.Again):
            for number in list(self._waiting):
                self.socket.send_multipart(encode_message(Cancel(number), 0))
                self._read()
            last = next(self._numbers)
            self.socket.send_multipart(_linear(1, Role.PAD)(self._model, last))
            until = time.monotonic() + CALM_S
            while self._last_id != last and time.monotonic() < until:
                self.socket.poll(10)
                self._read()
        self.socket.close(linger=0)

    def _send(self) -> bool:
        if self._unsent is None:
            number = next(self._numbers)
            self._unsent = number, self._attack.frames(self._model, number)
        number, frames = self._unsent
        try:
            self.socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        self._unsent = None
        if self._attack.computes:
            self._waiting.add(number)
        self.counts["sent"] += 1
        return True

    def _read(self) -> bool:
        moved = False
        for _ in range(MESSAGES_A_STEP):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            moved = True
            try:
                received = decode_message([frame.buffer for frame in frames], MAX_DATA_HEADER_BYTES)
            except RemoteProtocolError:
                continue
            self._waiting.discard(received.id)
            self._last_id = received.id
            message = received.message
            kind = f"error {int(message.code)}" if isinstance(message, ErrorReply) else type(message).__name__
            self.counts[kind] += 1
        return moved


@click.command()
@click.option("--target", "targets", type=AddressType(needs_peer=True), multiple=True, required=True)
@click.option("--identities", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--model", default="story", show_default=True)
def main(targets: tuple[Multiaddr, ...], identities: int, data_dir: Path, model: str) -> None:
    """Be some members of the swarm of TARGETs, and load them as stdin says.

    A line is {"attack": NAME, "target": INDEX, "identities": COUNT}, or {} to stop; each is answered.
    """
    directory = DataDir.open(data_dir)
    swarm = load_swarm(directory.path, os.environ).key
    stored = Library(directory.models).resolve(model)
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(HostileMember(targets, swarm, stored)) for _ in range(identities)]
        loads: list[Load] = []
        tell({"type": "ready"})
        while True:
            if not any([load.step() for load in loads]) or select.select([sys.stdin], [], [], 0)[0]:
                readable = [load.socket for load in loads] if loads else []
                if not select.select([sys.stdin], [], [], 0.001 if readable else None)[0]:
                    continue
                line = sys.stdin.readline()
                for load in loads:
                    load.end()
                counts: Counter[str] = sum((load.counts for load in loads), Counter())
                if not line:
                    return
                command = json.loads(line)
                loads = []
                if command:
                    attack, target = ATTACKS[command["attack"]], command["target"]
                    for index in range(command["identities"]):
                        begun = members[index].begin(target, attack)
                        if begun is None:  # it makes itself a new key, and comes again
                            counts["kept out"] += 1
                            members[index] = stack.enter_context(HostileMember(targets, swarm, stored))
                            begun = members[index].begin(target, attack)
                        loads += [] if begun is None else [begun]
                tell({"type": "counts", **counts})


def tell(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main()
