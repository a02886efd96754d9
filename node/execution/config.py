"""Settings of the execution, each with its trade-off."""

from __future__ import annotations

from msgspec import Struct

from node.execution.account import CREDIT_S
from protocol.message import ErrorCode

MAX_ATTEMPTS = 2
"""A share is sent at most twice; after one failed retry its rows are computed locally."""
NOT_AGAIN = (ErrorCode.EXHAUSTED, ErrorCode.NOT_FOUND, ErrorCode.DENIED)
"""Errors that the same request would cause again."""


class ExecutionConfig(Struct, frozen=True):
    """When to stop waiting. These settings never change the answer, only where a chunk is computed."""

    progress_limit_s: float = 30.0
    """A chunk without progress for this long is computed locally, whatever the statistics say."""
    hedge_factor: float = 3.0
    """A chunk is late after this many times the 95th percentile of its peers' latency, or when a peer's credit is
    used up. A lower value wastes local work, a higher one waits longer for a frozen peer."""
    hedge_floor_s: float = 0.05
    """Never hedge earlier: a scheduling delay on a busy machine is shorter than this, a frozen peer is not."""
    hedge_unmeasured_s: float = 1.0
    """Before there are enough samples for a percentile, at least this long (a peer may still map its weights)."""
    exchange_s: float = 0.015
    """What an exchange may take in addition to the items below: processes must wake and share the processor. A lower
    value drops peers on a busy machine, a higher one lets a slow peer cost more."""
    way_factor: float = 1.25
    way_limit_s: float = 0.08
    """The round trip to a peer is assumed to be its quickest ping, up to this limit, and may take a quarter more. A
    peer can answer pings late on purpose, so the limit bounds the gain of such a lie; a peer that is really further
    away is used only if computing here takes long."""
    least_bytes_per_s: float = 10e6
    """The transfer may be as slow as this."""
    local_factor: float = 4.0
    """Computing may take so many times as long as here. A lower value drops weaker devices, a higher one waits for
    them."""
    credit_s: float = CREDIT_S
    """After so many seconds beyond all that, a peer gets no work, and a pass waits for nobody any more."""
