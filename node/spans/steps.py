"""The rows of a pass as they travel: steps of a few rows, which go from stage to stage in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from msgspec import Struct, field

from node.model.cache import KVCache
from node.model.row_log import RowLog
from node.model.span import SpanPart
from node.planning.spans import STEP_ROWS
from node.spans.crew import Arrival
from node.spans.device import SpanDevice
from node.spans.stage import Stage
from protocol.discreet import Discreet
from protocol.linear.field import Floats
from protocol.spans.messages import max_rows_per_step
from protocol.spans.onward import Onward

AHEAD = 2
"""Steps that a device has at a time: it computes one while the next is on its way."""


class Step(Discreet, Struct, eq=False):
    """Rows that travel together."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows", "arrived")
    parts: tuple[SpanPart, ...]
    rows: Floats
    """f32[T, D] before the stage at which it is, at last after the last one."""
    first: int
    """Its first row in the pass."""
    place: int = 0
    ready_at: float = 0.0
    """Since when `rows` are known here."""
    coming: dict[int, tuple[SpanDevice, int]] = field(default_factory=dict)
    """By place: who owes the result of that stage, and the id of the request."""
    arrived: dict[int, Arrival] = field(default_factory=dict)
    """By place: results that came before those of earlier stages."""


def cut(hidden: Floats, parts: Sequence[SpanPart]) -> list[Step]:
    """The rows of a pass as steps of at most STEP_ROWS rows; few rows stay together."""
    most = min(STEP_ROWS, max_rows_per_step(hidden.shape[1]))
    steps: list[Step] = []
    chosen: list[SpanPart] = []
    first = row = 0
    for part in parts:
        start = part.start
        while start < part.stop:
            stop = min(part.stop, start + most - (row - first))
            chosen.append(SpanPart(part.cache, start, stop))
            row += stop - start
            start = stop
            if row - first == most:
                steps.append(Step(tuple(chosen), hidden[first:row].copy(), first))
                chosen, first = [], row
    if chosen:
        steps.append(Step(tuple(chosen), hidden[first:row].copy(), first))
    return steps


def joined(steps: Sequence[Step]) -> Step:
    """Steps that follow each other as one, in which each sequence is one part."""
    parts: list[SpanPart] = []
    for part in (part for step in steps for part in step.parts):
        if parts and parts[-1].cache is part.cache:
            parts[-1] = SpanPart(part.cache, parts[-1].start, part.stop)
        else:
            parts.append(part)
    rows = steps[0].rows if len(steps) == 1 else np.concatenate([step.rows for step in steps])
    return Step(tuple(parts), rows, steps[0].first)


def remember(stage: Stage, step: Step) -> None:
    """Keep what goes into a stage that another device computes, unless it is known."""
    row = 0
    for part in step.parts:
        inputs = part.cache.inputs.setdefault(stage.layers.start, RowLog(step.rows.shape[1]))
        count = part.stop - part.start
        if inputs.length < part.stop or part.start >= part.cache.length:
            inputs.put(part.start, step.rows[row : row + count])
        row += count


def first_row(cache: KVCache, parts: Sequence[SpanPart]) -> int:
    """The row of a pass at which a text begins."""
    row = 0
    for part in parts:
        if part.cache is cache:
            break
        row += part.stop - part.start
    return row


class Run:
    """Steps on their way through stages.

    Args:
        reach: for each stage, how many stages after it get its rows without this device.
    """

    def __init__(self, steps: Sequence[Step], stages: Sequence[Stage], reach: Sequence[int]) -> None:
        self.stages, self._reach, self._num_steps = stages, reach, len(steps)
        self.waiting = [deque(steps), *(deque[Step]() for _ in stages)]
        """By place: steps whose rows are here, to be sent or computed; the last one has all that are done."""
        self.gone_through = 0
        """Rows that have come through one of its layers, of all layers."""
        self.flying: dict[tuple[SpanDevice, int], tuple[Step, int]] = {}
        """By device and id of the request: the step, and the place of the stage."""

    def take(self, place: int, whole: bool) -> list[Step]:
        """The next step that waits at a place; or all steps of the pass, once all of them do."""
        waiting = self.waiting[place]
        if not whole:
            return [waiting.popleft()]
        steps = list(waiting) if len(waiting) == self._num_steps else []
        if steps:
            waiting.clear()
        return steps

    def may_send(self, place: int) -> bool:
        """Whether the devices that get the rows of a stage have room for one step more."""
        way = self._way(place)
        return all(len(device.flights) < AHEAD * count for count, (device, _) in enumerate(way, 1))

    def send(self, step: Step) -> None:
        """Send a step to the device of its stage, whose result goes on as far as it reaches.

        Raises:
            DeviceError: a device cannot get it.
        """
        (first, layers), *others = self._way(step.place)
        onward: tuple[Onward, ...] = ()
        senders = [first, *(device for device, _ in others)]
        for place, (device, span) in reversed(list(enumerate(others, step.place + 1))):
            sender = senders[place - step.place - 1].peer_id
            onward = (device.expect_step(sender, span, step.parts, onward), *onward)
            self._flies(step, place, device, onward[0].binding.nonce)
        self._flies(step, step.place, first, first.send_step(layers, step.parts, step.rows, onward))

    def arrive(self, arrivals: Sequence[Arrival]) -> list[Step]:
        """Results have come; returns the steps whose they are."""
        steps: list[Step] = []
        for device, flight, result in arrivals:
            step, place = self.flying.pop((device, flight.binding.nonce))
            step.arrived[place] = device, flight, result
            steps.append(step)
        return steps

    def goes_on(self, step: Step) -> None:
        """A step has come through a stage."""
        step.place += 1
        if step.place not in step.coming:
            self.waiting[step.place].append(step)

    def take_back(self, step: Step) -> None:
        """What was to be handed on is sent from here."""
        for device, message_id in step.coming.values():
            if self.flying.pop((device, message_id), None) is not None:
                device.cancel_step(message_id)
        step.coming.clear()
        step.arrived.clear()
        self.waiting[step.place].append(step)

    def handed(self) -> Iterator[tuple[Step, SpanDevice]]:
        """Steps whose rows are known here, and the devices to which others hand them on."""
        for (device, message_id), (step, place) in list(self.flying.items()):
            flight = device.flights.get(message_id)
            if place == step.place and flight is not None and flight.handed:
                yield step, device

    def _way(self, place: int) -> list[tuple[SpanDevice, range]]:
        stages = self.stages[place : place + 1 + self._reach[place]]
        return [(stage.device, stage.layers) for stage in stages if stage.device is not None]

    def _flies(self, step: Step, place: int, device: SpanDevice, message_id: int) -> None:
        device.peer.chunks += 1
        step.coming[place] = device, message_id
        self.flying[device, message_id] = step, place
