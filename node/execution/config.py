"""Tunables of the execution, each with what it trades."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """When to stop waiting. All of it is invisible in the answer: only where a chunk is computed changes."""

    progress_limit_s: float = 30.0
    """A chunk without progress for this long is computed locally, whatever the statistics say."""
    hedge_factor: float = 3.0
    """A chunk is late at this many times the 95th percentile of its peers' latency. Lower wastes local work,
    higher waits longer for a peer that froze."""
    hedge_floor_s: float = 0.05
    """Never hedge earlier: a scheduler's hiccup on a busy machine is shorter than this, a frozen peer is not."""
    patience_limit_s: float = 3.0
    """However slow a peer made us believe it is, it is late after this (or after the predicted local time, where that
    is longer): a peer that answers a little later each time cannot stretch its percentile without end."""
    hedge_unmeasured_s: float = 1.0
    """Before there are enough samples for a percentile, at least this long (a peer may still map its weights)."""
