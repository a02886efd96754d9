"""The part of ZMTP 3.1 (rfc.zeromq.org/spec/37) that shows, from outside, whether a CURVE handshake succeeded.

CURVE encrypts messages, not the frames of its own handshake: with the server's READY command the client is known.
Until then, only a handshake of known size has to be let through.
"""

from __future__ import annotations

from enum import Enum

GREETING_BYTES = 64
ZMTP_FIRST_BYTE = 0xFF
"""Length of the greeting of every ZMTP connection."""
MAX_CLIENT_HANDSHAKE_BYTES = 2048
"""What a client sends until READY: greeting 64, HELLO 202, INITIATE less than 600 with the metadata of a socket."""
_COMMAND = 0x04


class CurveOutcome(Enum):
    """How far a server's side of a handshake has come."""

    UNDER_WAY = "under way"
    READY = "ready"
    FAILED = "failed"


class ServerHandshake:
    """Reads what a CURVE server sends, up to and including READY or ERROR."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._greeted = False
        self.outcome = CurveOutcome.UNDER_WAY

    def receive(self, data: bytes) -> CurveOutcome:
        """The outcome after these bytes; once it is known, it does not change."""
        if self.outcome is CurveOutcome.UNDER_WAY:
            self._unread += data
            if not self._greeted and len(self._unread) >= GREETING_BYTES:
                del self._unread[:GREETING_BYTES]
                self._greeted = True
            while self._greeted and self.outcome is CurveOutcome.UNDER_WAY and self._read_command():
                pass
        return self.outcome

    def _read_command(self) -> bool:
        """Whether a whole command had arrived."""
        if len(self._unread) < 2:
            return False
        # No command of a CURVE server is longer than 255 bytes; whatever else comes is no handshake.
        flags, length = self._unread[0], self._unread[1]
        if flags != _COMMAND:
            self.outcome = CurveOutcome.FAILED
            return False
        if len(self._unread) < 2 + length:
            return False
        body = bytes(self._unread[2 : 2 + length])
        del self._unread[: 2 + length]
        name = body[1 : 1 + body[0]] if body else b""
        if name == b"READY":
            self.outcome = CurveOutcome.READY
        elif name != b"WELCOME":
            self.outcome = CurveOutcome.FAILED
        return True
