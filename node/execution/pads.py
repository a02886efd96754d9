"""Where pads come from: the one thing in which the privacy modes differ.

A pad source yields tickets: pads of so many rows now, their products `W r` now or soon. In `split` mode a guard of
group A makes the products from a seed, ahead of need; in `strict` mode this device makes them itself.
Every pad row is handed out once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from node.execution.chunk import next_number
from node.execution.peer import SessionPeer
from node.kernels.interface import Kernels
from node.model.unit import Unit, UnitRef
from node.planning.cut import DECODE_BATCH_ROWS
from protocol.limits import MAX_CHUNK_ROWS, max_rows_per_chunk
from protocol.linear.field import Elements
from protocol.linear.shares import PadSeeds, pad_rows

MAX_REQUESTS_AHEAD = 48
"""Requests that a guard is sent ahead of need; a deeper model's later units ask when their turn comes."""
OWN_BATCH_ROWS = 32
"""Pads that this device makes in one go when its pool is empty while decoding."""


@dataclass(slots=True)
class PadBatch:
    """Pads of consecutive rows from one seed."""

    unit: UnitRef
    seed: bytes = field(repr=False)
    pads: Elements = field(repr=False)
    """`[rows, K]`"""
    products: Elements | None = field(default=None, repr=False)
    """`[rows, N]`, verified `W r`; None while they are under way."""
    failed: bool = False
    """The products will never come."""
    next_row: int = 0
    number: int = field(default_factory=next_number)

    @property
    def left(self) -> int:
        return len(self.pads) - self.next_row


Span = tuple[PadBatch, int, int]
"""Rows `[start, end)` of a batch."""


@dataclass(slots=True)
class PadTicket:
    """Pads of the rows of one chunk, used once."""

    pads: Elements = field(repr=False)
    """`[num_sent, K]`: the rows' pads, then the negated shares of the zero rows that fill the bucket."""
    num_rows: int
    batches: Sequence[Span] = field(repr=False)

    @property
    def failed(self) -> bool:
        return any(batch.failed for batch, _start, _end in self.batches)

    @property
    def batch_rows(self) -> int:
        """Rows of the request that its products come with."""
        return len(self.batches[0][0].pads)

    def products(self) -> Elements | None:
        """`[num_rows, N]`, or None while some are missing."""
        parts = []
        for batch, start, end in self.batches:
            if batch.products is None:
                return None
            parts.append(batch.products[start:end])
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[: self.num_rows]


class Ticket(Protocol):
    """What a chunk needs of its pads."""

    @property
    def pads(self) -> Elements:
        """`[bucket, K]`"""

    @property
    def failed(self) -> bool:
        """Whether their products will never come."""

    def products(self) -> Elements | None:
        """`[num_rows, N]`, or None while some are missing."""


class PadSource(Protocol):
    """What a lane needs: pads, and the chance to fetch some ahead."""

    @property
    def maker(self) -> SessionPeer | None:
        """The peer that makes their products; None where this device does, or there is nothing to make."""

    @property
    def binds_rows(self) -> bool:
        """Whether a share must never leave its lane: whoever makes the pads is nobody's device."""

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> Ticket:
        """Pads for a chunk of `num_rows` that travels as `num_sent`, never handed out before or again."""

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        """A few rows are about to be sent: see that pads for them and the next are there or under way."""

    def lacks(self, ref: UnitRef) -> None:
        """The maker does not hold this unit after all."""

    @property
    def usable(self) -> bool:
        """Whether it yields pads for rows that are under way."""

    @property
    def takes_rows(self) -> bool:
        """Whether rows of a new pass may rely on it."""


SendPad = Callable[[SessionPeer, Unit, PadBatch], bool]


class GuardPads:
    """Group A of one lane: a guard turns seeds into products."""

    binds_rows = True

    def __init__(self, guard: SessionPeer, seeds: PadSeeds, send: SendPad) -> None:
        self.guard = guard
        self.rows_asked = 0
        self._seeds = seeds
        self._send = send
        self._ahead: dict[UnitRef, deque[PadBatch]] = {}

    @property
    def maker(self) -> SessionPeer:
        return self.guard

    @property
    def usable(self) -> bool:
        return self.guard.usable

    @property
    def takes_rows(self) -> bool:
        return self.guard.takes_rows

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> PadTicket:
        """Zero rows get pads of the guard too: what it is asked for tells it no more than the bucket."""
        if num_sent > DECODE_BATCH_ROWS:
            batch = self._request(unit, num_sent)
            batch.next_row = len(batch.pads)
            return PadTicket(batch.pads, num_rows, [(batch, 0, num_sent)])
        batches = self._ahead.setdefault(unit.ref, deque())
        parts: list[Span] = []
        missing = num_sent
        while missing:
            while batches and (batches[0].failed or not batches[0].left):
                batches.popleft()
            if not batches:
                batches.append(self._request(unit, self._batch_rows(unit)))
            parts.append(_rows_of(batches[0], missing))
            missing -= parts[-1][2] - parts[-1][1]
        self._top_up(unit, batches, num_sent)
        return PadTicket(_joined([batch.pads[start:end] for batch, start, end in parts]), num_rows, parts)

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        for unit in units:
            if len(self.guard.in_flight) >= MAX_REQUESTS_AHEAD:
                return
            self._top_up(unit, self._ahead.setdefault(unit.ref, deque()), num_rows)

    def lacks(self, ref: UnitRef) -> None:
        """Its lane takes no more rows of that unit: nothing is left to do here."""

    def _top_up(self, unit: Unit, batches: deque[PadBatch], num_rows: int) -> None:
        """Ask for the next pads of a unit while those of one more pass are still left."""
        if self.takes_rows and sum(batch.left for batch in batches if not batch.failed) <= num_rows:
            batches.append(self._request(unit, self._batch_rows(unit)))

    @staticmethod
    def _batch_rows(unit: Unit) -> int:
        return min(DECODE_BATCH_ROWS, max_rows_per_chunk(unit.ref.num_inputs, unit.ref.num_outputs))

    def _request(self, unit: Unit, num_rows: int) -> PadBatch:
        seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "guard")
        batch = PadBatch(unit.ref, seed, pad_rows(seed, 0, num_rows, unit.ref.num_inputs))
        batch.failed = not self._send(self.guard, unit, batch)
        self.rows_asked += num_rows
        return batch


class OwnPads:
    """This device makes the products itself: nobody outside holds a pad, whatever they agree among themselves."""

    def __init__(self, kernels: Kernels, seeds: PadSeeds) -> None:
        self._kernels = kernels
        self._seeds = seeds
        self._pool: dict[UnitRef, deque[PadBatch]] = {}
        self.rows_made = 0
        self.seconds = 0.0

    usable = True
    takes_rows = True
    binds_rows = False
    maker = None

    def fill(self, units: Sequence[Unit], num_rows: int) -> None:
        """Have at least `num_rows` pads ready for every unit."""
        for unit in units:
            missing = num_rows - sum(batch.left for batch in self._pool.get(unit.ref, ()))
            while missing > 0:
                missing -= self._make(unit, min(missing, MAX_CHUNK_ROWS)).left

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> PadTicket:
        """Zero rows get pads whose products nobody makes: the results of such rows are not used."""
        batches = self._pool.setdefault(unit.ref, deque())
        parts: list[Span] = []
        missing = max(1, num_rows)  # a chunk may be zero rows alone
        while missing:
            if not batches:
                self._make(unit, max(missing, OWN_BATCH_ROWS if num_sent <= DECODE_BATCH_ROWS else 0))
            parts.append(_rows_of(batches[0], missing))
            missing -= parts[-1][2] - parts[-1][1]
            if not batches[0].left:
                batches.popleft()
        pads = [batch.pads[start:end] for batch, start, end in parts]
        if filling := num_sent - sum(map(len, pads)):
            seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "filling")
            pads.append(pad_rows(seed, 0, filling, unit.ref.num_inputs))
        return PadTicket(_joined(pads), num_rows, parts)

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        """Nothing to ask of anybody; an empty pool is filled when a row needs it."""

    def lacks(self, ref: UnitRef) -> None:
        """This device holds them all."""

    def _make(self, unit: Unit, num_rows: int) -> PadBatch:
        started = time.perf_counter()
        seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "own")
        pads = pad_rows(seed, 0, num_rows, unit.ref.num_inputs)
        batch = PadBatch(unit.ref, seed, pads, self._kernels.linear_field(unit.weights, pads))
        self._pool.setdefault(unit.ref, deque()).append(batch)
        self.rows_made += num_rows
        self.seconds += time.perf_counter() - started
        return batch


def _rows_of(batch: PadBatch, most: int) -> Span:
    """The next rows of a batch, at most so many; they are used now."""
    start = batch.next_row
    batch.next_row += min(most, batch.left)
    return batch, start, batch.next_row


def _joined(pads: Sequence[Elements]) -> Elements:
    return pads[0] if len(pads) == 1 else np.concatenate(pads)
