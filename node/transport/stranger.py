"""A TCP connection of somebody who is not known yet: a knock at the door, or a ZMTP handshake that a knock let in.

It lives in the gate's thread and costs a bounded number of bytes: 205 for a knock, some 2 KiB for a handshake.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from enum import Enum

from msgspec import Struct, field

from protocol.link.door import (
    BOX_NONCE_BYTES,
    DOOR_MAGIC,
    DOOR_NONCE_BYTES,
    KEY_PROOF_BYTES,
    KNOCK_BYTES,
    DoorError,
    DoorStatus,
    Doorway,
)
from protocol.link.zmtp import MAX_CLIENT_HANDSHAKE_BYTES, ZMTP_FIRST_BYTE, CurveOutcome, ServerHandshake

READ_BYTES = 4096


class Phase(Enum):
    """What a stranger has to do next."""

    FIRST = "first bytes"
    PROOF = "proof"
    CURVE = "CURVE handshake"


class StrangerEnded(Exception):  # noqa: N818 (it is no error: most end so)
    """A connection is over; the text says why where that is worth a line in the log."""


class Entry(Struct, frozen=True):
    """The way to the ROUTER for one connection that a proof let in."""

    socket: socket.socket
    """Connected to the ROUTER, non-blocking."""
    number: int
    """Its name."""
    curve_key: bytes
    """Whose proof it was."""


class House(Struct, frozen=True):
    """The gate's decisions about a stranger."""

    doorway: Doorway
    judge: Callable[[bytes], DoorStatus]
    """Whether a proven Ed25519 key is let in."""
    enter: Callable[[], Entry | None]
    """Of a ZMTP connection: None where no proof allows it."""


class Stranger(Struct, eq=False):
    """One connection. Every method may raise StrangerEnded or OSError, which end it."""

    outer: socket.socket
    host: str
    deadline: float
    phase: Phase = Phase.FIRST
    entry: Entry | None = None
    _unread: bytearray = field(default_factory=bytearray)
    _nonce: bytes = b""
    _challenge: bytes = b""
    _passed: int = 0
    _handshake: ServerHandshake = field(default_factory=ServerHandshake)

    def heard(self, house: House) -> None:
        """The outer socket has something."""
        if self.phase is Phase.CURVE:
            self._pass_on()
            return
        wanted = KNOCK_BYTES if self.phase is Phase.FIRST else KEY_PROOF_BYTES
        self._unread += self._read(self.outer, wanted - len(self._unread))
        if self.phase is Phase.FIRST:
            self._first_bytes(house)
        elif len(self._unread) == KEY_PROOF_BYTES:
            self._judged(house)

    def answered(self) -> bool:
        """The ROUTER has said something; whether its handshake with this connection is through."""
        assert self.entry is not None, "a ROUTER answers those alone that were let in"
        data = self._read(self.entry.socket, READ_BYTES)
        outcome = self._handshake.receive(data)
        _send_all(self.outer, data)
        if outcome is CurveOutcome.FAILED:
            raise StrangerEnded("it did not hold the key that was proven")
        return outcome is CurveOutcome.READY

    def close(self) -> None:
        """End both sides."""
        self.outer.close()
        if self.entry is not None:
            self.entry.socket.close()

    def _first_bytes(self, house: House) -> None:
        if self._unread[0] == ZMTP_FIRST_BYTE:
            self.entry = house.enter()
            if self.entry is None:
                raise StrangerEnded("it did not knock before")
            self.phase = Phase.CURVE
            self._forward(bytes(self._unread))
        elif not DOOR_MAGIC.startswith(self._unread[: len(DOOR_MAGIC)]):
            raise StrangerEnded("it speaks another protocol")
        elif len(self._unread) == KNOCK_BYTES:
            self._nonce = house.doorway.nonce_of(bytes(self._unread))
            self._challenge = secrets.token_bytes(DOOR_NONCE_BYTES)
            self._unread.clear()
            self.phase = Phase.PROOF
            _send_all(self.outer, self._challenge)

    def _judged(self, house: House) -> None:
        try:
            dialler = house.doorway.dialler_of(self._nonce, self._challenge, bytes(self._unread))
        except DoorError as exc:
            with contextlib.suppress(OSError):
                _send_all(self.outer, house.doorway.refusal(exc.status))
            raise StrangerEnded(str(exc)) from exc
        status = house.judge(dialler)
        if status is DoorStatus.OPEN:
            answer = house.doorway.answer(self._nonce, self._challenge, secrets.token_bytes(BOX_NONCE_BYTES))
        else:
            answer = house.doorway.refusal(status)
        _send_all(self.outer, answer)
        raise StrangerEnded

    def _pass_on(self) -> None:
        self._forward(self._read(self.outer, READ_BYTES))

    def _forward(self, data: bytes) -> None:
        assert self.entry is not None, "it was let in"
        self._passed += len(data)
        if self._passed > MAX_CLIENT_HANDSHAKE_BYTES:
            raise StrangerEnded("it sent more than a handshake")
        _send_all(self.entry.socket, data)

    @staticmethod
    def _read(source: socket.socket, most: int) -> bytes:
        data = source.recv(most)
        if not data:
            raise StrangerEnded
        return data


def _send_all(to: socket.socket, data: bytes) -> None:
    """Send what fits into any socket's buffer; a connection that does not even take this is ended."""
    try:
        sent = to.send(data)
    except BlockingIOError:
        sent = 0
    if sent != len(data):
        raise StrangerEnded("it does not read")
