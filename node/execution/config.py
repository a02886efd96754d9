"""Tunables of the execution, each with what it trades."""

from __future__ import annotations

from msgspec import Struct

from node.execution.account import CREDIT_S
from protocol.message import ErrorCode

MAX_ATTEMPTS = 2
"""A share is sent at most twice; after one failed retry its rows are computed locally."""
NOT_AGAIN = (ErrorCode.EXHAUSTED, ErrorCode.NOT_FOUND, ErrorCode.DENIED)
"""Errors that the same question would bring again."""


class ExecutionConfig(Struct, frozen=True):
    """When to stop waiting. All of it is invisible in the answer: only where a chunk is computed changes."""

    progress_limit_s: float = 30.0
    """A chunk without progress for this long is computed locally, whatever the statistics say."""
    hedge_factor: float = 3.0
    """A chunk is late at this many times the 95th percentile of its peers' latency, and where a peer's credit is
    used up. Lower wastes local work, higher waits longer for a peer that froze."""
    hedge_floor_s: float = 0.05
    """Never hedge earlier: a scheduler's hiccup on a busy machine is shorter than this, a frozen peer is not."""
    hedge_unmeasured_s: float = 1.0
    """Before there are enough samples for a percentile, at least this long (a peer may still map its weights)."""
    exchange_s: float = 0.015
    """What an exchange may take beside what follows: processes wake and take turns with others. Lower leaves peers
    on a busy machine, higher lets a slow one cost more."""
    way_factor: float = 1.25
    way_limit_s: float = 0.08
    """The way to a peer and back is believed to be as long as its quickest ping, up to this limit, and may take a
    quarter more. A peer can answer pings late, so the limit is what such a lie is worth; who is really further away
    is used only where computing here takes long."""
    least_bytes_per_s: float = 10e6
    """Bytes may travel as slowly as this."""
    local_factor: float = 4.0
    """Computing may take so many times what it takes here. Lower leaves weaker devices, higher waits for them."""
    credit_s: float = CREDIT_S
    """Seconds beyond all that after which a peer is left, and after which a pass waits for nobody any more."""
