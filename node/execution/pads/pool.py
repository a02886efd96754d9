"""Pads that this device makes while it computes no answer, for the `strict` answers to come.

They lie in memory alone. So a process that ends takes them along: no pad can be used again after a crash, and no disk
holds one. Each is given out once, to whichever session asks first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from msgspec import Struct

from node.execution.pads.batch import PadBatch
from node.kernels.interface import Kernels
from node.model.unit import Unit, UnitRef
from protocol.discreet import Discreet
from protocol.limits import SEED_BYTES
from protocol.linear.field import Elements
from protocol.linear.shares import PadSeeds, pad_rows

log = logging.getLogger(__name__)

BATCH_ROWS = 16
"""Rows of one seed: a session takes so many at once, and what it does not use is lost with it."""
QUIET_S = 2.0
"""Pads are made when nothing has been computed for so long."""
MOST_BYTES = 256 << 20
"""Memory of a pool, at most: 400 tokens of a model of 135 million weights, 45 of one of 8 billion."""
MAX_POOLS = 4
"""Models with a pool; the one that was asked for longest ago loses its own."""
STOP_LIMIT_S = 2.0
LEAST_PRIORITY = 19
"""The `nice` value of the thread."""
PRODUCT_BYTES = 4
"""Of an element of a product. Pads themselves are made again from their seed: they cost hardly any time."""


class PadsReady(Discreet, Struct):
    """Rows of one seed, and their products `[BATCH_ROWS, N]`."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("seed", "products")
    seed: bytes
    products: Elements


class PadPool:
    """Pads of one model's units. Safe to use from any thread.

    Args:
        units: those of the model's layers.
        limit_bytes: how much memory the pads may take.
    """

    def __init__(self, model_id: bytes, units: Sequence[Unit], limit_bytes: int) -> None:
        self._units = list(units)
        self._seeds = PadSeeds(secrets.token_bytes(SEED_BYTES), model_id)
        self._process = os.getpid()
        self._clears = 0
        self._lock = threading.Lock()
        self._ready: dict[UnitRef, deque[PadsReady]] = {unit.ref: deque() for unit in units}
        self._rounds = limit_bytes // max(1, BATCH_ROWS * self.row_bytes)
        """So many batches of every unit have room."""

    @property
    def row_bytes(self) -> int:
        """Memory for a row of every unit."""
        return sum(PRODUCT_BYTES * unit.ref.num_outputs for unit in self._units)

    @property
    def rows(self) -> int:
        """Rows that are ready for every unit: so many tokens need no further pads."""
        with self._lock:
            return BATCH_ROWS * min((len(batches) for batches in self._ready.values()), default=0)

    def take(self, ref: UnitRef) -> PadBatch | None:
        """Pads of a unit that nobody else gets; None if none are ready."""
        if os.getpid() != self._process:
            return None  # the pads are those of the process that forked this one
        with self._lock:
            batches = self._ready.get(ref)
            ready = batches.popleft() if batches else None
        if ready is None:
            return None
        return PadBatch(ref, ready.seed, BATCH_ROWS, ready.products)

    def clear(self) -> None:
        """Forget what is ready, and what is being made."""
        with self._lock:
            self._clears += 1
            for batches in self._ready.values():
                batches.clear()

    def make(self, kernels: Kernels) -> bool:
        """Make the pads of the unit that has fewest; returns whether there was room for more. One thread alone calls
        it."""
        with self._lock:
            clears = self._clears
            unit = min(self._units, key=lambda unit: len(self._ready[unit.ref]), default=None)
            if unit is None or len(self._ready[unit.ref]) >= self._rounds:
                return False
        self._seeds.stir(secrets.token_bytes(SEED_BYTES))
        seed = self._seeds.next(unit.ref.layer, unit.ref.kind, "own")
        products = kernels.linear_field(unit.weights, pad_rows(seed, 0, BATCH_ROWS, unit.ref.num_inputs))
        with self._lock:
            if self._clears == clears:
                self._ready[unit.ref].append(PadsReady(seed, np.ascontiguousarray(products)))
        return True


class PadPools:
    """The pools of a node, and the thread that fills them when nobody wants the processor.

    Args:
        kernels: makes the kernels of that thread, when it starts.
        limit_bytes: how much memory all pools together may take.
    """

    def __init__(self, kernels: Callable[[], Kernels], limit_bytes: Callable[[], int]) -> None:
        self._make_kernels, self._limit_bytes = kernels, limit_bytes
        self.is_busy: Callable[[], bool] = lambda: False
        """Whether an answer is being computed."""
        self.has_peers: Callable[[], bool] = lambda: True
        """Whether anybody is linked; pads are made only then."""
        self._pools: dict[bytes, PadPool] = {}
        self._news = threading.Condition()
        self._ending = False
        self._thread: threading.Thread | None = None

    def keep(self, model_id: bytes, units: Callable[[], Sequence[Unit]]) -> PadPool:
        """The pool of a model, which is kept full from now on."""
        with self._news:
            pool = self._pools.pop(model_id, None)
        if pool is None:  # it may read files: no lock
            pool = PadPool(model_id, units(), min(MOST_BYTES, self._limit_bytes() // MAX_POOLS))
        with self._news:
            self._pools[model_id] = pool
            for oldest in list(self._pools)[:-MAX_POOLS]:
                del self._pools[oldest]
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="pads ahead", daemon=True)
                self._thread.start()
        return pool

    def clear(self) -> None:
        """Forget what is ready in all pools. If this device was copied as it ran, the copies have the same pads."""
        for pool in list(self._pools.values()):
            pool.clear()

    def rows(self, model_id: bytes) -> int:
        """For how many tokens of a model there are pads."""
        pool = self._pools.get(model_id)
        return 0 if pool is None else pool.rows

    @property
    def ready(self) -> dict[bytes, int]:
        """By model, for how many tokens there are pads."""
        return {model_id: pool.rows for model_id, pool in list(self._pools.items())}

    def stop(self) -> None:
        """End the thread after its current batch; where that takes long, do not wait for it."""
        with self._news:
            self._ending = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(STOP_LIMIT_S)

    def _main(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        try:
            self._fill_for_ever(self._make_kernels())
        except Exception:  # answers make their own pads then
            log.exception("no pads are made ahead any more")

    def _fill_for_ever(self, kernels: Kernels) -> None:
        quiet_since = time.monotonic()
        while not self._ending:
            if self.is_busy() or not self.has_peers():
                quiet_since = time.monotonic()
            is_quiet = time.monotonic() >= quiet_since + QUIET_S
            if is_quiet and any([self._make(pool, kernels) for pool in list(self._pools.items())]):
                continue
            with self._news:
                self._news.wait_for(lambda: self._ending, QUIET_S / 4)

    def _make(self, pool: tuple[bytes, PadPool], kernels: Kernels) -> bool:
        """Make some pads, unless there is no room, or no time; a pool that cannot be filled is given up."""
        model_id, pads = pool
        try:
            return not self._ending and pads.make(kernels)
        except Exception:  # answers make their own pads then
            log.exception("no more pads are made ahead for model %s", model_id.hex()[:16])
            with self._news:
                self._pools.pop(model_id, None)
            return False
