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
"""After so many results in a row that were not sent on, or got lost, all go through this device: the two devices do
not reach each other. A device dials the next one when it first has something for it, so the first ones fail."""


class _Edge(Struct):
    """From one device to another."""

    failed: int = 0
    """Results in a row that did not get there."""
    works: bool = False
    """Whether the last result got there."""


class Edges:
    """Of one session; only its thread uses it."""

    def __init__(self) -> None:
        self._edges: dict[tuple[SpanDevice, SpanDevice], _Edge] = {}

    def reach(self, stages: Sequence[Stage], num_steps: int, num_parts: int) -> list[int]:
        """For each stage, how many stages after it get its rows without this device. It holds for a whole pass: were
        some of its steps to take another way, they could come in another order.

        Args:
            num_parts: the most sequences of a step.
        """
        counts = [0] * len(stages)
        for place in range(len(stages) - 2, -1, -1):
            if self._is_usable(stages[place].device, stages[place + 1].device, num_steps):
                counts[place] = 1 + counts[place + 1]
        most = most_onward(num_parts)
        return [min(count, most) for count in counts]

    def passed(self, sender: SpanDevice, receiver: SpanDevice, arrived: bool) -> None:
        """A result was sent on and has arrived, or it has not."""
        edge = self._edges.setdefault((sender, receiver), _Edge())
        edge.works, edge.failed = arrived, 0 if arrived else edge.failed + 1

    def distrust(self, sender: SpanDevice, receiver: SpanDevice) -> None:
        """The receiver got other rows than this device, or says so."""
        self._edges[sender, receiver] = _Edge(MAX_FAILED)

    def _is_usable(self, sender: SpanDevice | None, receiver: SpanDevice | None, num_steps: int) -> bool:
        if sender is None or receiver is None or sender is receiver or receiver.opens:
            return False  # a cache that has not been opened yet knows no rows of others
        edge = self._edges.get((sender, receiver), _Edge())
        return edge.failed < MAX_FAILED and (edge.works or num_steps == 1)
