"""Lanes: who may ever see what, decided purely.

A lane is a fixed pair of guards: A gets the seeds of pads, B gets rows minus pads. A row stays in its lane, so only
the two guards of one lane could ever put it together; a peer never holds both roles in a session.
In `strict` mode pads are made at home and a lane is B alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

DEFAULT_MAX_LANES = 4


PeerT = TypeVar("PeerT")


def pair_guards(places: Sequence[PeerT | None], max_lanes: int) -> list[tuple[PeerT, PeerT]]:
    """Fixed lanes (A, B): the peers at places 2i and 2i + 1, in the order in which the user named them.

    Args:
        places: a named peer that is not there leaves its place empty. Its partner then stays out: nobody moves up, or
            two peers that the user kept apart could meet in one lane.
    """
    pairs = zip(places[::2], places[1::2], strict=False)
    return [(a, b) for a, b in pairs if a is not None and b is not None][:max_lanes]
