"""One attempt to pair two devices, seen from one side: messages in, messages out, no clock and no randomness."""

from __future__ import annotations

import hmac
from typing import ClassVar

from msgspec import Struct, field

from protocol.discreet import Discreet
from protocol.errors import RemoteProtocolError
from protocol.identity import Identity, PeerId, public_key_of, verify_signature
from protocol.limits import OPERATOR_BYTES
from protocol.pairing.code import CERTIFICATE_DOMAIN, Certificate, Meeting, certified, commitment
from protocol.pairing.messages import (
    PairAnswer,
    PairAsk,
    PairConfirm,
    PairingMessage,
    PairRefusal,
    PairRefuse,
    PairReveal,
)
from protocol.pairing.states import OVER, TRANSITIONS, PairEvent, PairState

# SPEC.md section 15.
OWNER_TIMEOUT_S = 120.0
"""Time for a person to walk to the other device, or to compare two screens."""
ANSWER_TIMEOUT_S = 10.0
"""Time for a message that needs no person."""
REPEAT_S = 2.0
"""A confirmation is repeated at this interval until the other side's arrives: links break, and then only one side
would be paired."""

_TIMEOUTS_S = {PairState.ANSWERED: ANSWER_TIMEOUT_S}


class Attempt(Discreet, Struct):
    """State of one attempt; `outgoing` fills with what is to be sent."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("meeting", "outgoing")
    identity: Identity
    peer_id: PeerId
    attempt: bytes
    operator: bytes
    state: PairState = PairState.NEW
    deadline: float = 0.0
    reason: PairRefusal | None = None
    """Why it ended."""
    ended_there: bool = False
    """The other side ended it."""
    meeting: Meeting | None = None
    peer_operator: bytes = bytes(OPERATOR_BYTES)
    outgoing: list[PairingMessage] = field(default_factory=list)
    _asks_here: bool = False
    _nonce: bytes = b""
    _commitment: bytes = b""
    _peer_signature: bytes = b""
    _repeat_at: float = 0.0

    # --- what the owner does

    def ask(self, nonce: bytes, now: float) -> None:
        """The owner wants to pair."""
        self._asks_here, self._nonce = True, nonce
        self._move(PairEvent.ASK, now)
        hold = commitment(self.attempt, self.identity.public_key, self.peer_key, nonce)
        self.outgoing.append(PairAsk(self.attempt, hold))

    def accept(self, nonce: bytes, now: float) -> None:
        """The owner wants what the other side asked for."""
        self._nonce = nonce
        self._move(PairEvent.ACCEPT, now)
        self.outgoing.append(PairAnswer(self.attempt, nonce))

    def confirm(self, code: str, now: float) -> bool:
        """The owner saw `code` on the other screen; another one than ours ends the attempt."""
        if not hmac.compare_digest(code.encode(), self.code.encode()):
            self.end(PairRefusal.MISMATCH, PairEvent.REFUSE, now)
            return False
        self._move(PairEvent.CONFIRM, now)
        self._certify(now)
        return True

    def end(self, reason: PairRefusal, event: PairEvent, now: float) -> None:
        """It ends from this side."""
        if self.state not in OVER:
            self._move(event, now)
            self.reason = reason
            self.outgoing.append(PairRefuse(self.attempt, reason))

    # --- what comes from the other side and from the clock

    def receive(self, message: PairingMessage, now: float) -> None:
        """Apply a message of this attempt. A message out of turn, or one that fails a check, ends the attempt."""
        try:
            self._receive(message, now)
        except RemoteProtocolError:
            self.end(PairRefusal.BROKEN, PairEvent.BREAK, now)

    def tick(self, now: float) -> None:
        """Let time pass: the attempt may end, or repeat its confirmation."""
        if self.state in OVER:
            return
        if now >= self.deadline:
            self.end(PairRefusal.EXPIRED, PairEvent.EXPIRE, now)
        elif self.state is PairState.CONFIRMED and now >= self._repeat_at:
            self._certify(now)

    # --- what others want to know

    @property
    def peer_key(self) -> bytes:
        return public_key_of(self.peer_id)

    @property
    def unused_nonce(self) -> bytes:
        """The nonce of an ask that was never revealed; it may be used for an answer."""
        assert self.state is PairState.ASKED
        return self._nonce

    @property
    def code(self) -> str:
        """What this screen shows; empty while there is nothing to compare."""
        return "" if self.meeting is None else self.meeting.code

    @property
    def certificate(self) -> Certificate:
        """Both signatures; there once it is PAIRED."""
        meeting = self._meeting
        mine = self.identity.sign(CERTIFICATE_DOMAIN, self._certified)
        signatures = (mine, self._peer_signature) if self._asks_here else (self._peer_signature, mine)
        return Certificate(meeting.pairing, meeting.asker, meeting.answerer, *signatures)

    # --- how it is done

    def _receive(self, message: PairingMessage, now: float) -> None:
        match message:
            case PairAsk(_, hold):
                self._move(PairEvent.RECEIVE_ASK, now)
                self._commitment = hold
            case PairReveal(_, nonce):  # before PairAnswer, of which it is one
                self._move(PairEvent.RECEIVE_REVEAL, now)
                self._open(nonce)
            case PairAnswer(_, nonce):
                self._move(PairEvent.RECEIVE_ANSWER, now)
                self._meet(self._nonce, nonce)
                self.outgoing.append(PairReveal(self.attempt, self._nonce))
            case PairConfirm():
                self._confirmed_there(message, now)
            case PairRefuse(_, reason):
                self._move(PairEvent.RECEIVE_REFUSE, now)
                self.reason, self.ended_there = reason, True
            case _:
                raise RemoteProtocolError("not a message of an attempt")

    def _move(self, event: PairEvent, now: float) -> None:
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            raise RemoteProtocolError(f"{event.value} does not follow {self.state.value}")
        if following is not self.state:
            self.deadline = now + _TIMEOUTS_S.get(following, OWNER_TIMEOUT_S)
        self.state = following

    def _open(self, nonce: bytes) -> None:
        hold = commitment(self.attempt, self.peer_key, self.identity.public_key, nonce)
        if not hmac.compare_digest(hold, self._commitment):
            raise RemoteProtocolError("the nonce is not the one that was committed to")
        self._meet(nonce, self._nonce)

    def _meet(self, asker_nonce: bytes, answerer_nonce: bytes) -> None:
        keys = self.identity.public_key, self.peer_key
        asker, answerer = keys if self._asks_here else keys[::-1]
        self.meeting = Meeting(self.attempt, asker, answerer, asker_nonce, answerer_nonce)

    def _confirmed_there(self, message: PairConfirm, now: float) -> None:
        if PairEvent.RECEIVE_CONFIRM not in TRANSITIONS[self.state]:
            raise RemoteProtocolError("a confirmation out of turn")
        verify_signature(self.peer_key, CERTIFICATE_DOMAIN, self._certified, message.signature)
        self._move(PairEvent.RECEIVE_CONFIRM, now)
        self._peer_signature, self.peer_operator = message.signature, message.operator
        if self.state is PairState.PAIRED and not message.holds_yours:
            self._certify(now)

    def _certify(self, now: float) -> None:
        """Send this side's certificate."""
        self._repeat_at = now + REPEAT_S
        signature = self.identity.sign(CERTIFICATE_DOMAIN, self._certified)
        holds_theirs = bool(self._peer_signature)
        self.outgoing.append(PairConfirm(self.attempt, signature, self.operator, holds_theirs))

    @property
    def _meeting(self) -> Meeting:
        assert self.meeting is not None, "both nonces are known from COMPARING on"
        return self.meeting

    @property
    def _certified(self) -> bytes:
        return certified(self._meeting.pairing, self._meeting.asker, self._meeting.answerer)
