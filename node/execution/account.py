"""Time that a peer has cost beyond its allowance, and when it gets no work because of that. No I/O, time is an
argument.

Every second that an answer waits for a peer is added to its debt; every chunk that the peer computed pays its
allowance back (`patience` says how much that is). A peer whose debt exceeds its credit gets no work for a while,
twice as long each time, and is then tried again with little credit. So a peer can cost at most its allowance, its
credit once, and a little for each trial, whatever it does.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

CREDIT_S = 1.0
"""Seconds beyond the allowance: enough for a peer that reads its weights for the first time, or loses a packet."""
TRIAL_S = 0.1
"""Credit of a peer that is tried again."""
REST_FIRST_S = 1.0
REST_MAX_S = 60.0
"""First and longest time without work; each is twice the previous one."""
STEADY = 10
"""If a peer was used for so many times its last rest, the next rest is the shortest one again."""
FAILURE_S = 0.1
"""Cost of an error: about ten in a row, with their round trips, use up the credit."""
UNASKED_S = 0.02
"""Cost of an unrequested message, which must be received, decrypted and decoded."""
EXCUSED = 64
"""So many unrequested messages cost nothing: answers from an earlier session may still arrive on a connection."""
UNASKED_LIMIT = 256
"""After so many more the connection is closed, because giving no work does not stop them."""


class Reason(Enum):
    """Why a peer gets no work."""

    LATE = "late"
    FAILING = "failing"
    NOISY = "noisy"


class Account(Struct):
    """The account of one peer in one session."""

    credit_s: float = CREDIT_S
    debt_s: float = 0.0
    """Seconds waited for it beyond its allowance; never below 0, so it cannot save up."""
    reason: Reason | None = None
    """Why it gets no work, or is on trial; None again once its debt is at most half of its credit."""
    left_for: Reason | None = None
    """The last reason why it got no work; None if it always got work."""
    rest_s: float = 0.0
    """How long it last got no work."""
    rests_until: float = 0.0
    unasked: int = 0
    excused: int = EXCUSED
    """How many more unrequested messages are not its fault."""

    @property
    def left_s(self) -> float:
        """Seconds beyond the allowance that may still be waited for it; below 0 if that is exceeded."""
        return self.credit_s - self.debt_s

    @property
    def overdrawn(self) -> bool:
        return self.debt_s >= self.credit_s

    @property
    def owes(self) -> bool:
        """Whether paying back would change anything."""
        return self.debt_s > 0.0 or self.reason is not None

    @property
    def floods(self) -> bool:
        """Whether it sent so many unrequested messages that its connection must be closed."""
        return self.unasked >= UNASKED_LIMIT

    def resting(self, now: float) -> bool:
        """Whether it gets no work now."""
        return now < self.rests_until

    def waited(self, seconds: float, now: float) -> None:
        """The answer waited for this peer."""
        if not self.resting(now):
            self.debt_s += seconds

    def served(self, allowed_s: float, now: float) -> None:
        """A chunk from it was merged; `allowed_s` is the allowance of that chunk."""
        if self.resting(now):
            return  # it belongs to the time before
        self.debt_s = max(self.debt_s - allowed_s, 0.0)
        if self.debt_s <= self.credit_s / 2:
            self.reason = None
        self.look(now)

    def failed(self, now: float) -> None:
        """It answered with an error, or its connection broke while it had work."""
        self.waited(FAILURE_S, now)
        self.look(now, Reason.FAILING)

    def heard_unasked(self, now: float) -> None:
        """It sent an unrequested message."""
        if self.excused > 0:
            self.excused -= 1
            return
        self.unasked += 1
        self.waited(UNASKED_S, now)
        self.look(now, Reason.NOISY)

    def look(self, now: float, reason: Reason = Reason.LATE) -> None:
        """Give it no work for a while if its debt exceeds its credit."""
        if not self.overdrawn or self.resting(now):
            return
        steady = now - self.rests_until > STEADY * self.rest_s
        self.rest_s = REST_FIRST_S if steady else min(2 * self.rest_s, REST_MAX_S)
        self.rests_until = now + self.rest_s
        self.debt_s = max(self.credit_s - TRIAL_S, 0.0)
        self.reason = self.left_for = reason
