"""Pads whose products this device makes: `strict` mode."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence

from node.execution.pads.batch import PadBatch, PadTicket, Span, joined
from node.execution.pads.pool import PadPool
from node.kernels.interface import Kernels
from node.model.unit import Unit, UnitRef
from node.planning.cut import DECODE_BATCH_ROWS
from protocol.limits import MAX_CHUNK_ROWS, SEED_BYTES
from protocol.linear.field import Elements
from protocol.linear.shares import PadSeeds, pad_rows

OWN_BATCH_ROWS = 32
"""Number of pads that this device makes at once when its pool is empty while decoding."""


class OwnPads:
    """This device makes the products itself, so no peer has a pad, even if all peers collude."""

    def __init__(self, kernels: Kernels, seeds: PadSeeds, ahead: PadPool | None = None) -> None:
        """
        Args:
            ahead: pads that are used before any are made.
        """
        self._kernels = kernels
        self._seeds = seeds
        self._ahead = ahead
        self._pool: dict[UnitRef, deque[PadBatch]] = {}
        self.rows_made = 0
        self.seconds = 0.0

    usable = True
    takes_rows = True
    binds_rows = False
    maker = None

    def fill(self, units: Sequence[Unit], num_rows: int) -> None:
        """Make pads until at least `num_rows` are ready for every unit."""
        for unit in units:
            missing = num_rows - sum(batch.left for batch in self._pool.get(unit.ref, ()))
            while missing > 0:
                batch = self._draw(unit, min(missing, MAX_CHUNK_ROWS))
                batch.complete()
                missing -= batch.left

    def take(self, unit: Unit, num_rows: int, num_sent: int) -> PadTicket:
        """Zero rows get pads without products, because the results of such rows are not used. Products that are not
        made yet come with `PadTicket.complete`, while a peer computes the share."""
        batches = self._pool.setdefault(unit.ref, deque())
        parts: list[Span] = []
        missing = max(1, num_rows)  # a chunk may have only zero rows
        while missing:
            if not batches and (ready := None if self._ahead is None else self._ahead.take(unit.ref)) is not None:
                batches.append(ready)
            elif not batches:
                self._draw(unit, max(missing, OWN_BATCH_ROWS if num_sent <= DECODE_BATCH_ROWS else 0))
            parts.append(batches[0].take(missing))
            missing -= parts[-1][2] - parts[-1][1]
            if not batches[0].left:
                batches.popleft()
        pads = [batch.pads[start:end] for batch, start, end in parts]
        if filling := num_sent - sum(map(len, pads)):
            seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "filling")
            pads.append(pad_rows(seed, 0, filling, unit.ref.num_inputs))
        return PadTicket(joined(pads), num_rows, parts)

    def prepare(self, units: Sequence[Unit], num_rows: int = 1) -> None:
        """Does nothing: an empty pool is filled when a row needs it."""

    def forget(self) -> None:
        self._pool.clear()
        self._seeds.stir(secrets.token_bytes(SEED_BYTES))
        if self._ahead is not None:
            self._ahead.clear()

    def can_without(self, ref: UnitRef) -> bool:
        """True: no peer makes the pads."""
        return True

    def _draw(self, unit: Unit, num_rows: int) -> PadBatch:
        """Fresh pads; their products are made when they are completed."""
        seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "own")
        batch = PadBatch(unit.ref, seed, num_rows, make=lambda batch: self._products(unit, batch))
        self._pool.setdefault(unit.ref, deque()).append(batch)
        return batch

    def _products(self, unit: Unit, batch: PadBatch) -> Elements:
        started = time.perf_counter()
        products = self._kernels.linear_field(unit.weights, batch.pads)
        self.rows_made += batch.num_rows
        self.seconds += time.perf_counter() - started
        return products
