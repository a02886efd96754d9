"""Which blob comes next, and which piece of it a source is asked for: decided purely.

Every source is kept busy, so that a faster one takes more by itself. Urgent blobs come first, then those that few
sources hold, so that a source that holds much is not kept busy with what others could have given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key")

PATIENCE = 2.0
"""A piece is asked of a second source once it is overdue by this factor of that source's own time for a piece."""
MIN_OVERDUE_S = 0.5


def fetch_order(blobs: Iterable[tuple[Key, int, int, int]]) -> list[Key]:
    """Blobs in the order in which pieces are asked for.

    Args:
        blobs: (blob, level, number of sources that hold it, place in the user's order); without a source, it waits.
    """
    ready = [entry for entry in blobs if entry[2] > 0]
    return [blob for blob, *_rank in sorted(ready, key=lambda entry: entry[1:])]


def overdue_piece(asked_at: Mapping[int, float], now: float, own_piece_s: float) -> int | None:
    """Of the pieces asked of only one other source, the one that waits longest, where this source would be much
    faster."""
    index = min(asked_at, key=lambda piece: (asked_at[piece], piece), default=None)
    if index is None or now - asked_at[index] <= max(MIN_OVERDUE_S, PATIENCE * own_piece_s):
        return None
    return index
