"""Messages of a link besides its hello: answers to pings, the goodbye, and the offer to serve over a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from protocol.fields import take_integer, take_text
from protocol.limits import MAX_ERROR_CHARACTERS
from protocol.message import BodyMessage, MessageType


class Pong(BodyMessage, frozen=True):
    """Answer to a Ping."""

    TYPE: ClassVar[MessageType] = MessageType.PONG
    queued: int
    """Chunks waiting at the sender's worker."""

    def to_body(self) -> dict[int, Any]:
        return {0: self.queued}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_integer(body, 0, 0, 1 << 31))


class GoAway(BodyMessage, frozen=True):
    """The sender leaves: nothing new is to be sent to it."""

    TYPE: ClassVar[MessageType] = MessageType.GOAWAY
    reason: str

    def to_body(self) -> dict[int, Any]:
        return {0: self.reason[:MAX_ERROR_CHARACTERS]}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_text(body, 0, MAX_ERROR_CHARACTERS))


class Attach(BodyMessage, frozen=True):
    """First message on a data connection whose dialler offers to serve over it."""

    TYPE: ClassVar[MessageType] = MessageType.ATTACH

    def to_body(self) -> dict[int, Any]:
        return {}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls()
