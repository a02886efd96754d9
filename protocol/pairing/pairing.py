"""The pairing desk: every attempt of one device to be paired, and how many of them may fail.

Sans-IO: what the owner does and what peers send goes in with the time, what is to be sent and what came of it comes
out. A stranger who asks gets no nonce before the owner has said yes. Only one attempt at a time is past that point,
and few of them may fail within a while: a guess at the code succeeds once in a million times, and there are few
guesses.
"""

from __future__ import annotations

from msgspec import Struct, field

from protocol.errors import LocalProtocolError
from protocol.identity import Identity, PeerId
from protocol.pairing.attempt import Attempt
from protocol.pairing.code import Certificate
from protocol.pairing.messages import PairAsk, PairingMessage, PairRefusal, PairRefuse, Unpair
from protocol.pairing.states import GUESSED, OVER, PairEvent, PairState

# SPEC.md section 15.
MAX_FAILURES_A_PEER = 3
MAX_FAILURES = 10
LOCK_S = 600.0
"""Failures are remembered for this long. While there are too many, this device asks nobody and answers nobody."""
MAX_OFFERS = 8
"""Most peers that may wait for the owner's yes."""
MAX_REMEMBERED = 32
"""Most attempts that are over and still shown."""


class Send(Struct, frozen=True):
    """A message to a peer."""

    peer_id: PeerId
    message: PairingMessage


class Paired(Struct, frozen=True):
    """Two devices are paired: both signed."""

    peer_id: PeerId
    certificate: Certificate
    operator: bytes
    """The smaller of both ids: from now on it names the owner of both."""


class Revoked(Struct, frozen=True):
    """The other side takes a pairing back, or never knew that it came about."""

    peer_id: PeerId
    pairing: bytes


PairAction = Send | Paired | Revoked


class PairingDesk(Struct):
    """All attempts of one device, one for each peer."""

    identity: Identity
    operator: bytes
    attempts: dict[PeerId, Attempt] = field(default_factory=dict)
    _failures: list[tuple[PeerId, float]] = field(default_factory=list)

    # --- the owner

    def start(self, peer_id: PeerId, attempt: bytes, nonce: bytes, now: float) -> list[PairAction]:
        """Pair with this peer: answer it if it asks already, else ask it.

        Raises LocalProtocolError where another attempt is under way, or where too many failed of late.

        Args:
            attempt: 16 fresh random bytes.
            nonce: 32 fresh random bytes.
        """
        actions = self.tick(now)
        if peer_id == self.identity.peer_id:
            raise LocalProtocolError("this is the device itself: give the PeerID of the other one")
        if (left_s := self.locked_s(peer_id, now)) > 0:
            raise LocalProtocolError(f"too many attempts failed: wait {left_s:.0f} s before the next one")
        known, busy = self.attempts.get(peer_id), self.active
        if busy is not None and busy is not known:
            raise LocalProtocolError(f"an attempt with {busy.peer_id} is under way: confirm or refuse it first")
        if busy is not None:
            return actions
        if known is not None and known.state is PairState.OFFERED:
            known.accept(nonce, now)
        else:
            known = self._begin(peer_id, attempt)
            known.ask(nonce, now)
        return actions + self._collect(known, now)

    def confirm(self, peer_id: PeerId, code: str, now: float) -> list[PairAction]:
        """The owner saw this code on the other screen. Raises LocalProtocolError where none is to be confirmed."""
        attempt = self._expect(peer_id, (PairState.COMPARING, PairState.CERTIFIED))
        before = attempt.state
        attempt.confirm(code, now)
        return self._collect(attempt, now, before)

    def refuse(self, peer_id: PeerId, now: float, mismatch: bool = False) -> list[PairAction]:
        """The owner says no. Raises LocalProtocolError where there is nothing to refuse."""
        attempt = self._expect(peer_id, tuple(state for state in PairState if state not in OVER))
        reason = PairRefusal.MISMATCH if mismatch else PairRefusal.REFUSED
        return self._finish(attempt, reason, PairEvent.REFUSE, now)

    @property
    def active(self) -> Attempt | None:
        """The one attempt that the owner of this device takes part in."""
        taken = (a for a in self.attempts.values() if a.state not in OVER and a.state is not PairState.OFFERED)
        return next(taken, None)

    def locked_s(self, peer_id: PeerId, now: float) -> float:
        """Seconds until another attempt with this peer is allowed; 0 where it is."""
        recent = [(peer, at) for peer, at in self._failures if at + LOCK_S > now]
        of_peer = [at for peer, at in recent if peer == peer_id]
        until = 0.0
        if len(of_peer) >= MAX_FAILURES_A_PEER:
            until = of_peer[-MAX_FAILURES_A_PEER] + LOCK_S
        if len(recent) >= MAX_FAILURES:
            until = max(until, recent[-MAX_FAILURES][1] + LOCK_S)
        return max(0.0, until - now)

    # --- peers and the clock

    def receive(self, peer_id: PeerId, message: PairingMessage, now: float) -> list[PairAction]:
        """A message from a peer, whose key the link has proved. Never raises for what a peer may send."""
        actions = self.tick(now)
        match message:
            case Unpair(pairing, answers):
                answer: list[PairAction] = [] if answers else [Send(peer_id, Unpair(pairing, True))]
                return [*actions, *answer, Revoked(peer_id, pairing)]
            case PairAsk():
                return actions + self._asked(peer_id, message, now)
            case _:
                return actions + self._continued(peer_id, message, now)

    def tick(self, now: float) -> list[PairAction]:
        """Let time pass; call it at least every second while there are attempts."""
        actions: list[PairAction] = []
        self._failures = [(peer, at) for peer, at in self._failures if at + LOCK_S > now]
        for attempt in list(self.attempts.values()):
            before = attempt.state
            attempt.tick(now)
            actions += self._collect(attempt, now, before)
        over = [peer_id for peer_id, attempt in self.attempts.items() if attempt.state in OVER]
        for peer_id in over[: max(0, len(over) - MAX_REMEMBERED)]:
            del self.attempts[peer_id]
        return actions

    def _asked(self, peer_id: PeerId, message: PairAsk, now: float) -> list[PairAction]:
        """Somebody wants to pair: it waits for the owner, or goes on where the owner asked it at the same time."""
        known = self.attempts.get(peer_id)
        actions: list[PairAction] = []
        crossing = known is not None and known.state is PairState.ASKED
        if known is not None and crossing and self.identity.public_key < known.peer_key:
            return []  # both asked at once: the smaller key stays the asker, the other one answers
        refusal = self._refusal(peer_id, now)
        if refusal is not None:
            return [Send(peer_id, PairRefuse(message.attempt, refusal))]
        if known is not None and known.state not in OVER and not crossing:
            actions += self._finish(known, PairRefusal.BROKEN, PairEvent.BREAK, now)
        attempt = self._begin(peer_id, message.attempt)
        attempt.receive(message, now)
        if known is not None and crossing:
            attempt.accept(known.unused_nonce, now)
        return actions + self._collect(attempt, now)

    def _refusal(self, peer_id: PeerId, now: float) -> PairRefusal | None:
        if self.locked_s(peer_id, now) > 0:
            return PairRefusal.LOCKED
        offers = [a for a in self.attempts.values() if a.state is PairState.OFFERED and a.peer_id != peer_id]
        return PairRefusal.BUSY if len(offers) >= MAX_OFFERS else None

    def _continued(self, peer_id: PeerId, message: PairingMessage, now: float) -> list[PairAction]:
        assert not isinstance(message, Unpair)
        attempt = self.attempts.get(peer_id)
        if attempt is None or attempt.attempt != message.attempt:
            if isinstance(message, PairRefuse):
                return []
            return [Send(peer_id, PairRefuse(message.attempt, PairRefusal.UNKNOWN))]
        before = attempt.state
        attempt.receive(message, now)
        return self._collect(attempt, now, before)

    # --- how it is done

    def _begin(self, peer_id: PeerId, attempt: bytes) -> Attempt:
        self.attempts.pop(peer_id, None)  # so that the newest is last
        begun = self.attempts[peer_id] = Attempt(self.identity, peer_id, attempt, self.operator)
        return begun

    def _expect(self, peer_id: PeerId, states: tuple[PairState, ...]) -> Attempt:
        attempt = self.attempts.get(peer_id)
        if attempt is None or attempt.state not in states:
            state = "no attempt" if attempt is None else f"the attempt is {attempt.state.value}"
            raise LocalProtocolError(f"nothing to do with {peer_id} now: {state}")
        return attempt

    def _finish(self, attempt: Attempt, reason: PairRefusal, event: PairEvent, now: float) -> list[PairAction]:
        before = attempt.state
        attempt.end(reason, event, now)
        return self._collect(attempt, now, before)

    def _collect(self, attempt: Attempt, now: float, before: PairState | None = None) -> list[PairAction]:
        """What is to be done after an attempt moved on from `before`."""
        actions: list[PairAction] = [Send(attempt.peer_id, message) for message in attempt.outgoing]
        attempt.outgoing.clear()
        if before is attempt.state:
            return actions
        if attempt.state is PairState.ENDED and before in GUESSED:
            self._failures.append((attempt.peer_id, now))
        if attempt.state is PairState.ENDED and before is PairState.PAIRED and attempt.meeting is not None:
            actions.append(Revoked(attempt.peer_id, attempt.meeting.pairing))
        if attempt.state is PairState.PAIRED:
            self.operator = common_operator(self.operator, attempt.peer_operator)
            actions.append(Paired(attempt.peer_id, attempt.certificate, self.operator))
        return actions


def common_operator(first: bytes, second: bytes) -> bytes:
    """The operator id that two devices of one owner share: the smaller one; zeros mean none."""
    return min((operator for operator in (first, second) if any(operator)), default=first)
