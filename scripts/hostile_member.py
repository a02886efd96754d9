"""A member of the swarm that loads one node: it has the swarm's key, says hello, and asks for all that it can get.

Each *identity* of it is a member of its own: a key, a control link that is kept alive, and a connection to the data
plane. `scripts/members` and the tests start it as a process; it prints `{"type": "ready"}` when every identity is let
in, loads the node until it is told to end, and prints a line of counts.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import zmq

from node.cli.options import AddressType
from node.cli.stop_signal import StopSignal
from node.paths import DataDir
from node.store.library import Library
from node.store.stored import StoredModel
from node.swarm.credentials import load_swarm
from node.transport.control import ControlPlane
from node.transport.link import new_nonce
from node.transport.registry import PeerRegistry
from node.transport.sockets import MAX_DATA_FRAME_BYTES, SecureContext
from protocol import cbor
from protocol.admission import SwarmKey
from protocol.envelope import Frame
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity
from protocol.limits import MAGIC, MAX_CHUNK_ROWS, MAX_DATA_HEADER_BYTES, PROTOCOL_VERSION, TILE_OUTPUTS
from protocol.messages import (
    Cancel,
    ChunkBinding,
    ErrorReply,
    Hello,
    Linear,
    Message,
    Role,
    decode_message,
    encode_message,
)
from protocol.multiaddr import Multiaddr
from protocol.transfer_messages import BlobAsk, Credit, PieceAsk

LINK_TIMEOUT_S = 20.0
UNKNOWN_TYPE = 4321
ENOUGH_CREDIT = 1 << 40


@dataclass(frozen=True, slots=True)
class Attack:
    """What is sent over and over, and how."""

    frames: Callable[[StoredModel, int], list[Frame]]
    """Frames of the request with this number."""
    window: int | None
    """Requests without an answer at a time; None: as many as the connection takes."""
    reads: bool = True
    """Whether answers are read at all."""


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
            filling = {key: {} for key in range(900)}
            return [(MAGIC + cbor.encode({0: 16, 1: number, 4: filling}))[:MAX_DATA_HEADER_BYTES]]


def _pieces(model: StoredModel, number: int) -> list[Frame]:
    """Asks for the first piece of a unit, with credit for all of it."""
    unit = model.manifest.units[0].sha256
    asks: list[Message] = [Credit(ENOUGH_CREDIT), BlobAsk(unit), PieceAsk(unit, 0), PieceAsk(unit, 0)]
    return encode_message(asks[number % len(asks)], number)


ATTACKS: dict[str, Attack] = {
    "shares": Attack(_linear(MAX_CHUNK_ROWS, Role.SHARE), 64),
    "seeds": Attack(_linear(MAX_CHUNK_ROWS, Role.PAD), 512),
    "rows": Attack(_linear(1, Role.PAD), 512),
    "cheap": Attack(_cheap, None),
    "cancels": Attack(_same(Cancel(1)), None),
    "unread": Attack(_linear(MAX_CHUNK_ROWS, Role.PAD), None, reads=False),
    "pieces": Attack(_pieces, 32),
}


class HostileMember:
    """One identity of the attacker; a context manager."""

    def __init__(self, target: Multiaddr, swarm: SwarmKey | None, attack: Attack, model: StoredModel) -> None:
        self._attack, self._model, self._target = attack, model, target
        self.registry = PeerRegistry()
        self.secure = SecureContext(Identity.from_seed(secrets.token_bytes(32)))
        self._control = ControlPlane(self.secure, self.registry, self._hello, swarm=swarm)
        self._waiting = 0
        self._unsent: deque[list[Frame]] = deque()
        self._numbers = itertools.count(1)
        self.counts: Counter[str] = Counter()

    def _hello(self) -> Hello:
        key = self.secure.identity.public_key
        return Hello(key, (PROTOCOL_VERSION,), "hostile", (), 0, (), 0, (1,), new_nonce())

    def __enter__(self) -> HostileMember:
        self.secure.__enter__()
        self._control.start(None, [self._target])
        changed = self.registry._changed
        with changed:
            if not changed.wait_for(self.registry.usable, LINK_TIMEOUT_S):
                raise click.ClickException(f"not let in: {self.registry.outcomes()}")
        endpoint = self.registry.usable()[0].data_endpoint
        assert endpoint is not None and self._target.peer_id is not None
        self.socket = self.secure.context.socket(zmq.DEALER)
        self.secure.dial(self.socket, self._target.peer_id, MAX_DATA_FRAME_BYTES)
        self.socket.connect(endpoint)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close(linger=0)
        self._control.stop()
        self.secure.__exit__()

    def load(self) -> bool:
        """Send what the window and the connection let through, read what has come; False where nothing moved."""
        moved = False
        for _ in range(64):
            if self._attack.window is not None and self._waiting >= self._attack.window:
                break
            if not self._send():
                break
            moved = True
        return self._read() or moved

    def _send(self) -> bool:
        if not self._unsent:
            self._unsent.append(self._attack.frames(self._model, next(self._numbers)))
        try:
            self.socket.send_multipart(self._unsent[0], zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        self._unsent.popleft()
        self._waiting += 1
        self.counts["sent"] += 1
        return True

    def _read(self) -> bool:
        moved = False
        for frames in self._received() if self._attack.reads else ():
            moved = True
            self._waiting -= 1
            try:
                received = decode_message([frame.buffer for frame in frames], MAX_DATA_HEADER_BYTES)
            except RemoteProtocolError:
                continue
            message = received.message
            kind = f"error {int(message.code)}" if isinstance(message, ErrorReply) else type(message).__name__
            self.counts[kind] += 1
        return moved

    def _received(self) -> Iterator[list[zmq.Frame]]:
        for _ in range(64):
            try:
                yield self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return


@click.command()
@click.option("--target", type=AddressType(needs_peer=True), required=True, help="Control address of the node.")
@click.option("--attack", "name", type=click.Choice(list(ATTACKS)), required=True)
@click.option("--identities", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--model", default="story", show_default=True)
def main(target: Multiaddr, name: str, identities: int, data_dir: Path, model: str) -> None:
    """Load the node at TARGET as a member of its swarm."""
    signalled, stopping = StopSignal(), threading.Event()
    threading.Thread(target=lambda: (signalled.wait(), stopping.set()), daemon=True).start()
    directory = DataDir.open(data_dir)
    swarm = load_swarm(directory.path, os.environ).key
    stored = Library(directory.models).resolve(model)
    members = [HostileMember(target, swarm, ATTACKS[name], stored) for _ in range(identities)]
    entered: list[HostileMember] = []
    try:
        for member in members:
            entered.append(member.__enter__())
        print(json.dumps({"type": "ready"}), flush=True)
        while not stopping.is_set():
            if not any([member.load() for member in members]):
                zmq.select([member.socket for member in members if member._attack.reads], [], [], 0.002)
        total: Counter[str] = sum((member.counts for member in members), Counter())
        print(json.dumps({"type": "counts", **total}), flush=True)
    finally:
        for member in reversed(entered):
            member.__exit__()


if __name__ == "__main__":
    sys.exit(main())
