"""What may follow what in an attempt to pair two devices, as one table for both sides.

What is not in the table ends the attempt; later messages of it are unknown here.
"""

from __future__ import annotations

from enum import Enum


class PairState(Enum):
    """How far an attempt is, seen from one side."""

    NEW = "new"
    ASKED = "asked"
    """The asker waits for the other owner."""
    OFFERED = "offered"
    """The answerer's owner has not yet said that it may go on."""
    ANSWERED = "answered"
    """The answerer waits for the nonce that opens the commitment."""
    COMPARING = "comparing"
    """Both screens show a code, nobody has confirmed it yet."""
    CONFIRMED = "confirmed here"
    CERTIFIED = "confirmed there"
    PAIRED = "paired"
    ENDED = "ended"


class PairEvent(Enum):
    """What moves an attempt."""

    ASK = "owner asks"
    RECEIVE_ASK = "receive PAIR_ASK"
    ACCEPT = "owner accepts"
    RECEIVE_ANSWER = "receive PAIR_ANSWER"
    RECEIVE_REVEAL = "receive PAIR_REVEAL"
    CONFIRM = "owner confirms the code"
    RECEIVE_CONFIRM = "receive PAIR_CONFIRM"
    REFUSE = "owner refuses"
    RECEIVE_REFUSE = "receive PAIR_REFUSE"
    EXPIRE = "time is over"
    BREAK = "anything else"


_ENDINGS = {
    PairEvent.REFUSE: PairState.ENDED,
    PairEvent.RECEIVE_REFUSE: PairState.ENDED,
    PairEvent.EXPIRE: PairState.ENDED,
    PairEvent.BREAK: PairState.ENDED,
}

# SPEC.md section 15.
TRANSITIONS: dict[PairState, dict[PairEvent, PairState]] = {
    PairState.NEW: {PairEvent.ASK: PairState.ASKED, PairEvent.RECEIVE_ASK: PairState.OFFERED},
    PairState.ASKED: {PairEvent.RECEIVE_ANSWER: PairState.COMPARING, **_ENDINGS},
    PairState.OFFERED: {PairEvent.ACCEPT: PairState.ANSWERED, **_ENDINGS},
    PairState.ANSWERED: {PairEvent.RECEIVE_REVEAL: PairState.COMPARING, **_ENDINGS},
    PairState.COMPARING: {
        PairEvent.CONFIRM: PairState.CONFIRMED,
        PairEvent.RECEIVE_CONFIRM: PairState.CERTIFIED,
        **_ENDINGS,
    },
    PairState.CONFIRMED: {PairEvent.RECEIVE_CONFIRM: PairState.PAIRED, **_ENDINGS},
    # It is said again while this owner still compares.
    PairState.CERTIFIED: {
        PairEvent.CONFIRM: PairState.PAIRED,
        PairEvent.RECEIVE_CONFIRM: PairState.CERTIFIED,
        **_ENDINGS,
    },
    # The other side may not have heard this side's certificate: it asks again, or gives up and is not paired.
    PairState.PAIRED: {PairEvent.RECEIVE_CONFIRM: PairState.PAIRED, PairEvent.RECEIVE_REFUSE: PairState.ENDED},
    PairState.ENDED: {},
}

GUESSED = frozenset({PairState.COMPARING, PairState.CONFIRMED, PairState.CERTIFIED})
"""An attempt that ends in one of these states counts as a guess at the code."""
OVER = frozenset({PairState.PAIRED, PairState.ENDED})
