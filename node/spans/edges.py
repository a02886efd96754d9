"""Which results go straight from a device to the next one, without passing through this device.

That saves half of a round trip for each device after the first. This device gets every result all the same: it keeps
what went into each span, and has it computed again. A device says whether it sent a result on.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from node.spans.device import SpanDevice
from node.spans.stage import Stage
from protocol.spans.onward import most_onward

MAX_FAILED = 16
"""After so many results in a row that were not sent on, all go through this device: the two devices do not reach each
other. A device dials the next one when it first has something for it, so the first ones fail."""
LOST_WEIGHT = 4
"""A result that got lost counts as so many: it has cost more time."""


class _Edge(Struct):
    """From one device to another."""

    failed: int = 0
    """Results in a row that did not get there."""
    is_distrusted: bool = False


class Edges:
    """Of one session; only its thread uses it."""

    def __init__(self) -> None:
        self._edges: dict[tuple[SpanDevice, SpanDevice], _Edge] = {}

    def reach(self, stages: Sequence[Stage], num_steps: int, num_parts: int) -> list[int]:
        """For each stage, how many stages after it get its rows without this device. The steps of a longer pass all
        go through here: were one of them lost, the next would be computed without it.

        Args:
            num_parts: the sequences of the step.
        """
        counts = [0] * len(stages)
        if num_steps == 1:
            for place in range(len(stages) - 2, -1, -1):
                if self._is_usable(stages[place].device, stages[place + 1].device):
                    counts[place] = 1 + counts[place + 1]
        most = most_onward(num_parts)
        return [min(count, most) for count in counts]

    def arrived(self, sender: SpanDevice, receiver: SpanDevice) -> None:
        """A result was sent on, and has arrived."""
        self._edge(sender, receiver).failed = 0

    def kept(self, sender: SpanDevice, receiver: SpanDevice) -> None:
        """A result was not sent on."""
        self._edge(sender, receiver).failed += 1

    def lost(self, sender: SpanDevice, receiver: SpanDevice) -> None:
        """A result was sent on, and seems not to have arrived."""
        self._edge(sender, receiver).failed += LOST_WEIGHT

    def distrust(self, sender: SpanDevice, receiver: SpanDevice) -> None:
        """The receiver got other rows than this device, or says so: nothing goes straight any more."""
        self._edge(sender, receiver).is_distrusted = True

    def _edge(self, sender: SpanDevice, receiver: SpanDevice) -> _Edge:
        return self._edges.setdefault((sender, receiver), _Edge())

    def _is_usable(self, sender: SpanDevice | None, receiver: SpanDevice | None) -> bool:
        if sender is None or receiver is None or sender is receiver or receiver.opens:
            return False  # a cache that has not been opened yet knows no rows of others
        edge = self._edge(sender, receiver)
        return edge.failed < MAX_FAILED and not edge.is_distrusted
