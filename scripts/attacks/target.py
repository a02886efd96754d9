"""What an attacker knows of a node, and how a member gets through its door.

An address carries the PeerID, hence the key that CURVE needs: everything here but the swarm's key is public.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Self
from urllib.parse import urlsplit

from protocol.identity import Identity, curve_public_key_of, public_key_of
from protocol.link.admission import SwarmKey
from protocol.link.door import (
    ANSWER_BYTES,
    BOX_NONCE_BYTES,
    CHALLENGE_BYTES,
    DOOR_NONCE_BYTES,
    DoorStatus,
    Knock,
    door_box,
)
from protocol.multiaddr import parse_multiaddr
from scripts.attacks.raw_zmtp import LIMIT_S, DoorShutError, RawZmtp, connect
from scripts.harness.connections import listening_ports
from scripts.harness.swarm import NodeProcess

OPEN_SWARM_KEY = bytes(32)
"""What opens an open swarm's door, which anybody may try on a private one's."""
FIRST_WORD_S = 0.5
"""libzmq says its greeting before it hears anything; a door waits to be asked."""


@dataclass(frozen=True, slots=True)
class Target:
    """A node as seen from outside."""

    host: str
    control_port: int
    data_port: int
    public_key: bytes
    """Ed25519, 32 bytes."""

    @classmethod
    def of(cls, node: NodeProcess) -> Self:
        """A node of the harness; its data port is the one that it listens on beside the two that it names."""
        address = parse_multiaddr(node.address)
        gateway_port = urlsplit(node.gateway).port
        others = listening_ports(node.process.pid) - {address.port, gateway_port}
        assert address.peer_id is not None and len(others) == 1, f"one data port, not {others}"
        return cls(address.host, address.port, others.pop(), public_key_of(address.peer_id))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `str` made of one."""
        host, control_port, data_port, key = text.split(",")
        return cls(host, int(control_port), int(data_port), bytes.fromhex(key))

    def __str__(self) -> str:
        return f"{self.host},{self.control_port},{self.data_port},{self.public_key.hex()}"

    @property
    def ports(self) -> tuple[int, int]:
        return self.control_port, self.data_port

    @contextmanager
    def dealer(self, port: int, attacker: Attacker) -> Iterator[RawZmtp]:
        """A connection with CURVE's handshake done; a member proves the swarm's key first where the port is a door.

        Raises DoorShutError.
        """
        if attacker.swarm_key is not None and has_door(self.host, port):
            self.admit(port, attacker.me, attacker.swarm_key)
        with RawZmtp(connect(self.host, port), attacker.me, curve_public_key_of(self.public_key)) as connection:
            connection.shake_hands()
            yield connection

    def admit(self, port: int, me: Identity, swarm_key: bytes) -> None:
        """Prove the swarm's key at the door: one connection of this identity is let in next. Raises DoorShutError."""
        with connect(self.host, port) as tcp:
            try:
                tcp.sendall(self.proof(tcp, me, swarm_key))
                answer = tcp.recv(ANSWER_BYTES, socket.MSG_WAITALL)
            except OSError as exc:
                raise DoorShutError(f"the door: {exc}") from exc
        if not answer or answer[0] != DoorStatus.OPEN:
            raise DoorShutError(f"the door did not take the proof: {answer[:1].hex() or 'hung up'}")

    def proof(self, tcp: socket.socket, me: Identity, swarm_key: bytes) -> bytes:
        """Ask for a challenge on a connection; the proof that answers it. Raises DoorShutError, OSError."""
        knock = Knock(door_box(SwarmKey(swarm_key)), me.public_key, self.public_key, os.urandom(DOOR_NONCE_BYTES))
        tcp.settimeout(LIMIT_S)
        tcp.sendall(knock.first())
        challenge = tcp.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)
        if len(challenge) != CHALLENGE_BYTES:
            raise DoorShutError("the door gave no challenge")
        return knock.proof(challenge, os.urandom(BOX_NONCE_BYTES))


@dataclass(frozen=True, slots=True)
class Attacker:
    """Who attacks: a key of its own, and the swarm's where it is a member."""

    me: Identity
    swarm_key: bytes | None = None

    @classmethod
    def stranger(cls) -> Self:
        """Somebody with a new key and without the swarm's."""
        return cls(Identity.from_seed(os.urandom(32)))


Attack = Callable[[Target, Attacker, float], None]
"""Attacks a node until a moment (monotonic seconds) at the latest, whatever the node does."""


@cache
def has_door(host: str, port: int) -> bool:
    """Whether a port is a door, which must be talked to before CURVE."""
    with connect(host, port) as tcp:
        tcp.settimeout(FIRST_WORD_S)
        try:
            return tcp.recv(1) == b""
        except OSError:
            return True
