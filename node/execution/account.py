"""What a peer has cost beyond what it may cost, and when it is left for that. Pure: the clock is passed in.

Every second that an answer waits for a peer is booked, every chunk that the peer served pays its allowance back
(`patience` says how much that is). Who is overdrawn is left for a while, twice as long each time, and then tried
again with little credit. So the seconds that a peer costs are those that it was allowed, its credit once, and a
little for each trial: whatever it does, and however it spreads it.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

CREDIT_S = 1.0
"""Seconds beyond the allowed ones: enough for a peer that reads its weights for the first time, or loses a packet."""
TRIAL_S = 0.1
"""Credit of a peer that is tried again."""
REST_FIRST_S = 1.0
REST_MAX_S = 60.0
"""How long it is left: doubled each time between the two."""
STEADY = 10
"""A peer that was used for so many times its last rest begins with the shortest rest again."""
FAILURE_S = 0.1
"""What an error costs: ten in a row, each with its way there and back, are enough."""
UNASKED_S = 0.02
"""What a message costs that nobody asked for: to be received, decrypted and decoded."""
EXCUSED = 64
"""Unasked messages that cost nothing: a connection that was lent before may still bring answers of that time."""
UNASKED_LIMIT = 256
"""So many more, and the connection is closed: being left would not stop them."""


class Reason(Enum):
    """Why a peer is left."""

    LATE = "late"
    FAILING = "failing"
    NOISY = "noisy"


class Account(Struct):
    """One peer in one session."""

    credit_s: float = CREDIT_S
    debt_s: float = 0.0
    """Seconds waited for it beyond those allowed; never below 0, nobody saves up."""
    reason: Reason | None = None
    """Why it is left, or on trial; None again once it has paid back half of its credit."""
    left_for: Reason | None = None
    """Why it was left last, however it does now; None where it never was."""
    rest_s: float = 0.0
    """How long it was left last."""
    rests_until: float = 0.0
    unasked: int = 0
    excused: int = EXCUSED
    """Messages that nobody waits for and that are not its fault, still to come at most."""

    @property
    def left_s(self) -> float:
        """Seconds that it may still be waited for beyond what is allowed; less than 0 where it was for longer."""
        return self.credit_s - self.debt_s

    @property
    def overdrawn(self) -> bool:
        return self.debt_s >= self.credit_s

    @property
    def floods(self) -> bool:
        """Whether it sent so much that nobody asked for that its connection is to be closed."""
        return self.unasked >= UNASKED_LIMIT

    def resting(self, now: float) -> bool:
        """Whether it is left alone now."""
        return now < self.rests_until

    def waited(self, seconds: float, now: float) -> None:
        """The answer stood still for its sake."""
        if not self.resting(now):
            self.debt_s += seconds

    def served(self, allowed_s: float, now: float) -> None:
        """A chunk of it was merged, which may take so long."""
        if self.resting(now):
            return  # of the time before
        self.debt_s = max(self.debt_s - allowed_s, 0.0)
        if self.debt_s <= self.credit_s / 2:
            self.reason = None
        self.look(now)

    def failed(self, now: float) -> None:
        """It answered that it cannot, or dropped its connection with work on it."""
        self.waited(FAILURE_S, now)
        self.look(now, Reason.FAILING)

    def heard_unasked(self, now: float) -> None:
        """It sent something that nobody asked for."""
        if self.excused > 0:
            self.excused -= 1
            return
        self.unasked += 1
        self.waited(UNASKED_S, now)
        self.look(now, Reason.NOISY)

    def look(self, now: float, reason: Reason = Reason.LATE) -> None:
        """Leave it where it is overdrawn."""
        if not self.overdrawn or self.resting(now):
            return
        steady = now - self.rests_until > STEADY * self.rest_s
        self.rest_s = REST_FIRST_S if steady else min(2 * self.rest_s, REST_MAX_S)
        self.rests_until = now + self.rest_s
        self.debt_s = max(self.credit_s - TRIAL_S, 0.0)
        self.reason = self.left_for = reason
