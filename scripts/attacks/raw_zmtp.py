"""The client side of a CURVE connection, written out byte by byte: what libzmq would never send.

libzmq offers neither half a handshake, nor a frame that stops in its middle, nor a reset; an attacker has them all.
The protocol is ZMTP 3.1 with CurveZMQ (rfc.zeromq.org/spec/23 and /26).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from nacl.bindings import (
    crypto_box,
    crypto_box_afternm,
    crypto_box_beforenm,
    crypto_box_keypair,
    crypto_box_open,
    crypto_box_open_afternm,
)

from protocol.identity import Identity

MORE, LONG, COMMAND = 1, 2, 4
GREETING = b"\xff" + bytes(8) + b"\x7f" + bytes([3, 1]) + b"CURVE".ljust(20, b"\0") + bytes(32)
LIMIT_S = 3.0
MAX_HANDSHAKE_FRAME_BYTES = 1024


class DoorShutError(Exception):
    """The listener closed the connection, or did not answer in time: a result, no fault."""


def frame(payload: bytes, flags: int = 0, claimed_bytes: int | None = None) -> bytes:
    """A ZMTP frame; `claimed_bytes`: the size that its head states, where that is a lie."""
    size = len(payload) if claimed_bytes is None else claimed_bytes
    if size < 256:
        return bytes([flags, size]) + payload
    return bytes([flags | LONG]) + struct.pack(">Q", size) + payload


def connect(host: str, port: int) -> socket.socket:
    """A TCP connection; raises DoorShutError where there is none."""
    try:
        return socket.create_connection((host, port), timeout=LIMIT_S)
    except OSError as exc:
        raise DoorShutError(f"no connection: {exc}") from exc


def reset(tcp: socket.socket) -> None:
    """End a connection as a crash does: what was on its way is lost."""
    with suppress(OSError):  # it is closed already
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.close()


def greeted(tcp: socket.socket) -> bool:
    """Say ZMTP's greeting; whether the other side says its own."""
    try:
        tcp.sendall(GREETING)
        return _exactly(tcp, len(GREETING))[:1] == GREETING[:1]
    except (OSError, DoorShutError):
        return False


def _exactly(tcp: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        part = tcp.recv(count - len(read))
        if not part:
            raise DoorShutError("the listener closed the connection")
        read += part
    return read


class RawZmtp:
    """A connection to a ROUTER whose CURVE key is known; a context manager that resets what is left open."""

    def __init__(self, tcp: socket.socket, me: Identity, server_curve_key: bytes) -> None:
        self.tcp = tcp
        self._me = me
        self._server = server_curve_key
        self._short_public, self._short_secret = crypto_box_keypair()
        self._nonce = 0
        self._key = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        reset(self.tcp)

    def shake_hands(self) -> None:
        """Greeting and CURVE handshake; raises DoorShutError where the listener does not go along."""
        try:
            if not greeted(self.tcp):
                raise DoorShutError("no greeting came")
            self.tcp.sendall(self.hello())
            self.tcp.sendall(self._initiate(self._command(b"\x07WELCOME")))
            self._read_ready(self._command(b"\x05READY"))
        except OSError as exc:
            raise DoorShutError(f"the handshake ended: {exc}") from exc

    def hello(self) -> bytes:
        """CURVE's first command, 200 bytes in a frame."""
        self._nonce += 1
        number = struct.pack(">Q", self._nonce)
        box = crypto_box(bytes(64), b"CurveZMQHELLO---" + number, self._server, self._short_secret)
        return frame(b"\x05HELLO\x01\x00" + bytes(72) + self._short_public + number + box, COMMAND)

    def _initiate(self, welcome: bytes) -> bytes:
        opened = crypto_box_open(welcome[16:], b"WELCOME-" + welcome[:16], self._server, self._short_secret)
        server_short, cookie = opened[:32], opened[32:]
        vouch_nonce = os.urandom(16)
        vouch = crypto_box(
            self._short_public + self._server, b"VOUCH---" + vouch_nonce, server_short, self._me.curve_secret_key
        )
        metadata = b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER" + b"\x08Identity" + bytes(4)
        self._key = crypto_box_beforenm(server_short, self._short_secret)
        self._nonce += 1
        number = struct.pack(">Q", self._nonce)
        said = self._me.curve_public_key + vouch_nonce + vouch + metadata
        return frame(
            b"\x08INITIATE" + cookie + number + crypto_box_afternm(said, b"CurveZMQINITIATE" + number, self._key),
            COMMAND,
        )

    def _read_ready(self, ready: bytes) -> None:
        crypto_box_open_afternm(ready[8:], b"CurveZMQREADY---" + ready[:8], self._key)

    def _command(self, name: bytes) -> bytes:
        flags, size = _exactly(self.tcp, 2)
        if flags & LONG:
            size = struct.unpack(">Q", bytes([size]) + _exactly(self.tcp, 7))[0]
        if size > MAX_HANDSHAKE_FRAME_BYTES:
            raise DoorShutError("a command of the handshake that is too long")
        command = _exactly(self.tcp, size)
        if not command.startswith(name):
            raise DoorShutError(f"{command[:10]!r} instead of {name!r}")
        return command[len(name) :]

    def sealed(self, payload: bytes, more: bool = False) -> bytes:
        """One frame of a message, encrypted: bytes for the wire."""
        self._nonce += 1
        number = struct.pack(">Q", self._nonce)
        box = crypto_box_afternm(bytes([more]) + payload, b"CurveZMQMESSAGEC" + number, self._key)
        return frame(b"\x07MESSAGE" + number + box)

    def send(self, frames: Sequence[bytes | memoryview], limit_s: float = LIMIT_S) -> None:
        """One message. Raises DoorShutError where the listener takes no more, or not in this time."""
        last = len(frames) - 1
        wire = b"".join(self.sealed(bytes(part), index < last) for index, part in enumerate(frames))
        self.send_raw(wire, limit_s)

    def send_raw(self, wire: bytes, limit_s: float = LIMIT_S) -> None:
        """Bytes as they are. Raises DoorShutError."""
        self.tcp.settimeout(limit_s)
        try:
            self.tcp.sendall(wire)
        except OSError as exc:
            raise DoorShutError(f"nothing more was taken: {exc}") from exc

    def fill(self, wires: Iterable[bytes], limit_s: float, blocked_s: float) -> int:
        """Send one after the other until nothing is taken for `blocked_s`, or there are no more; how many went."""
        until, sent = time.monotonic() + limit_s, 0
        for wire in wires:
            if time.monotonic() > until:
                break
            self.tcp.settimeout(blocked_s)
            try:
                self.tcp.sendall(wire)
            except TimeoutError:
                break
            except OSError as exc:
                raise DoorShutError(f"the connection ended: {exc}") from exc
            sent += 1
        return sent

    def read_what_came(self) -> int:
        """Throw away what the listener has said; how many bytes."""
        self.tcp.setblocking(False)
        count = 0
        try:
            while part := self.tcp.recv(1 << 16):
                count += len(part)
        except BlockingIOError:
            pass
        except OSError as exc:
            raise DoorShutError(f"the connection ended: {exc}") from exc
        return count
