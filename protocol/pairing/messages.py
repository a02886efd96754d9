"""Messages by which two devices of one owner are paired, and by which one of them ends it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Self

from protocol.discreet import Discreet
from protocol.fields import take_bytes, take_integer
from protocol.limits import HASH_BYTES, NONCE_BYTES, OPERATOR_BYTES
from protocol.message import BodyMessage, MessageType

# SPEC.md section 15.
PAIR_NONCE_BYTES = 32
SIGNATURE_BYTES = 64


class PairRefusal(IntEnum):
    """Why an attempt ends; the receiver makes the text for a person from it."""

    REFUSED = 1
    """The owner said no."""
    MISMATCH = 2
    """The owner saw another code."""
    EXPIRED = 3
    """Nobody acted in time."""
    BROKEN = 4
    """A check failed or a message came out of turn."""
    UNKNOWN = 5
    """There is no such attempt here."""
    LOCKED = 6
    """Too many attempts failed here of late."""
    BUSY = 7
    """Too many others wait here."""


class PairAsk(BodyMessage, frozen=True):
    """The asker wants to pair, and is bound to a nonce that it does not show yet."""

    TYPE: ClassVar[MessageType] = MessageType.PAIR_ASK
    attempt: bytes
    commitment: bytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.attempt, 1: self.commitment}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, NONCE_BYTES), take_bytes(body, 1, HASH_BYTES))


class PairAnswer(Discreet, BodyMessage, frozen=True):
    """The answerer's owner is there: its nonce, drawn before it could know the asker's."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("nonce",)
    TYPE: ClassVar[MessageType] = MessageType.PAIR_ANSWER
    attempt: bytes
    nonce: bytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.attempt, 1: self.nonce}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, NONCE_BYTES), take_bytes(body, 1, PAIR_NONCE_BYTES))


class PairReveal(PairAnswer, frozen=True):
    """The asker's nonce, which opens its commitment."""

    TYPE: ClassVar[MessageType] = MessageType.PAIR_REVEAL


class PairConfirm(BodyMessage, frozen=True):
    """The sender's owner saw the same code on both screens: its certificate over both keys."""

    TYPE: ClassVar[MessageType] = MessageType.PAIR_CONFIRM
    attempt: bytes
    signature: bytes
    operator: bytes
    """The id that the sender's devices share; both sides take the smaller one."""
    holds_yours: bool
    """The receiver's certificate has arrived at the sender: nothing more is wanted."""

    def to_body(self) -> dict[int, Any]:
        return {0: self.attempt, 1: self.signature, 2: self.operator, 3: int(self.holds_yours)}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(
            take_bytes(body, 0, NONCE_BYTES),
            take_bytes(body, 1, SIGNATURE_BYTES),
            take_bytes(body, 2, OPERATOR_BYTES),
            bool(take_integer(body, 3, 0, 1)),
        )


class PairRefuse(BodyMessage, frozen=True):
    """The attempt is over."""

    TYPE: ClassVar[MessageType] = MessageType.PAIR_REFUSE
    attempt: bytes
    reason: PairRefusal

    def to_body(self) -> dict[int, Any]:
        return {0: self.attempt, 1: int(self.reason)}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        reason = take_integer(body, 1, PairRefusal.REFUSED, PairRefusal.BUSY)
        return cls(take_bytes(body, 0, NONCE_BYTES), PairRefusal(reason))


class Unpair(BodyMessage, frozen=True):
    """The sender revokes a pairing; it repeats this on every new link until it is answered."""

    TYPE: ClassVar[MessageType] = MessageType.UNPAIR
    pairing: bytes
    answers: bool
    """True: the receiver revoked it, and the sender has heard of it."""

    def to_body(self) -> dict[int, Any]:
        return {0: self.pairing, 1: int(self.answers)}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_bytes(body, 0, HASH_BYTES), bool(take_integer(body, 1, 0, 1)))


PairingMessage = PairAsk | PairAnswer | PairReveal | PairConfirm | PairRefuse | Unpair
