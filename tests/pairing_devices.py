"""Devices that pair in memory."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field

from made_parts import identity

from protocol.identity import PeerId
from protocol.pairing.messages import (
    PairingMessage,
)
from protocol.pairing.pairing import (
    PairAction,
    Paired,
    PairingDesk,
    Revoked,
    Send,
)
from protocol.pairing.states import PairState

_numbers = itertools.count()


def fresh(size: int) -> bytes:
    """Bytes that were never there before, the same in every run."""
    return hashlib.blake2b(b"%d" % next(_numbers), digest_size=size).digest()


@dataclass
class Device:
    """A desk, its owner's hands, and what came of it."""

    number: int
    desk: PairingDesk = field(init=False)
    outbox: list[Send] = field(default_factory=list)
    paired: list[Paired] = field(default_factory=list)
    revoked: list[Revoked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = PairingDesk(identity(self.number), self.number.to_bytes(16, "big"))

    @property
    def peer_id(self) -> PeerId:
        return self.desk.identity.peer_id

    def start(self, other: PeerId, now: float = 0.0) -> None:
        self.take(self.desk.start(other, fresh(16), fresh(32), now))

    def confirm(self, other: PeerId, code: str | None = None, now: float = 0.0) -> None:
        self.take(self.desk.confirm(other, self.code(other) if code is None else code, now))

    def receive(self, sender: PeerId, message: PairingMessage, now: float = 0.0) -> None:
        self.take(self.desk.receive(sender, message, now))

    def tick(self, now: float) -> None:
        self.take(self.desk.tick(now))

    def take(self, actions: list[PairAction]) -> None:
        self.outbox += [action for action in actions if isinstance(action, Send)]
        self.paired += [action for action in actions if isinstance(action, Paired)]
        self.revoked += [action for action in actions if isinstance(action, Revoked)]

    def code(self, other: PeerId) -> str:
        return self.desk.attempts[other].code

    def state(self, other: PeerId) -> PairState:
        return self.desk.attempts[other].state


def deliver(*devices: Device, now: float = 0.0) -> None:
    """Carry messages between devices until none is left."""
    by_id = {device.peer_id: device for device in devices}
    while any(device.outbox for device in devices):
        for device in devices:
            while device.outbox:
                sent = device.outbox.pop(0)
                by_id[sent.peer_id].receive(device.peer_id, sent.message, now)


def compare(a: Device, b: Device) -> None:
    """Bring an attempt of `a` to the point where both screens show a code."""
    a.start(b.peer_id)
    deliver(a, b)
    b.start(a.peer_id)
    deliver(a, b)


def pair(a: Device, b: Device) -> None:
    compare(a, b)
    a.confirm(b.peer_id)
    b.confirm(a.peer_id)
    deliver(a, b)
