"""Pads whose products a guard makes from their seed, ahead of need: `split` mode."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence

from node.execution.pads.batch import PadBatch, PadTicket, Span, joined
from node.execution.pads.source import SendPad
from node.execution.peer import SessionPeer
from node.model.unit import Unit, UnitRef
from node.planning.cut import DECODE_BATCH_ROWS
from protocol.limits import SEED_BYTES, max_rows_per_chunk
from protocol.linear.shares import PadSeeds

MAX_REQUESTS_AHEAD = 48
"""Most requests to a guard ahead of need; in a deeper model, later units ask when they need pads."""


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
        """Zero rows get pads of the guard too, so that its requests reveal only the bucket."""
        if num_sent > DECODE_BATCH_ROWS:
            batch = self._request(unit, num_sent)
            batch.next_row = num_sent
            return PadTicket(batch.pads, num_rows, [(batch, 0, num_sent)])
        batches = self._ahead.setdefault(unit.ref, deque())
        parts: list[Span] = []
        missing = num_sent
        while missing:
            while batches and (batches[0].failed or not batches[0].left):
                batches.popleft()
            if not batches:
                batches.append(self._request(unit, self._batch_rows(unit)))
            parts.append(batches[0].take(missing))
            missing -= parts[-1][2] - parts[-1][1]
        self._top_up(unit, batches, num_sent)
        return PadTicket(joined([batch.pads[start:end] for batch, start, end in parts]), num_rows, parts)

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        for unit in units:
            if len(self.guard.in_flight) >= MAX_REQUESTS_AHEAD:
                return
            self._top_up(unit, self._ahead.setdefault(unit.ref, deque()), num_rows)

    def forget(self) -> None:
        self._ahead.clear()
        self._seeds.stir(secrets.token_bytes(SEED_BYTES))

    def can_without(self, ref: UnitRef) -> bool:
        """False: nobody else makes the pads."""
        return False

    def _top_up(self, unit: Unit, batches: deque[PadBatch], num_rows: int) -> None:
        """Ask for the next pads of a unit when at most enough for one more pass are left."""
        if sum(batch.left for batch in batches if not batch.failed) <= num_rows and self.takes_rows:
            batches.append(self._request(unit, self._batch_rows(unit)))

    @staticmethod
    def _batch_rows(unit: Unit) -> int:
        return min(DECODE_BATCH_ROWS, max_rows_per_chunk(unit.ref.num_inputs, unit.ref.num_outputs))

    def _request(self, unit: Unit, num_rows: int) -> PadBatch:
        seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "guard")
        batch = PadBatch(unit.ref, seed, num_rows)
        batch.failed = not self._send(self.guard, unit, batch)
        self.rows_asked += num_rows
        return batch
