"""How fast this device multiplies, measured in a few milliseconds when the node starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from node.kernels.interface import Kernels

SIDE = 1024
BUDGET_S = 0.005


def local_macs_per_s(kernels: Kernels) -> float:
    """Multiply-accumulates a second of one A12 row through a 1024 x 1024 unit."""
    return _measure(lambda weights: kernels.linear_a12(weights, np.ones((1, SIDE), dtype=np.int16)))


def field_macs_per_s(kernels: Kernels) -> float:
    """Multiply-accumulates a second of one row of field elements through a 1024 x 1024 unit."""
    return _measure(lambda weights: kernels.linear_field(weights, np.ones((1, SIDE), dtype=np.uint32)))


def _measure(call: Callable[[NDArray[np.int8]], object]) -> float:
    """By the quickest call: what else the system does meanwhile says nothing about this device."""
    weights = np.ones((SIDE, SIDE), dtype=np.int8)
    call(weights)
    least_s, began = math.inf, time.perf_counter()
    while (started := time.perf_counter()) - began < BUDGET_S or least_s == math.inf:
        call(weights)
        least_s = min(least_s, time.perf_counter() - started)
    return SIDE * SIDE / least_s
