"""Units, rows and identities made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from node.kernels import select_kernels
from node.model.unit import Unit, UnitRef
from protocol.identity import Identity

KERNELS = select_kernels(1)
MODEL_ID = hashlib.sha256(b"a model of tests").digest()


def make_unit(num_outputs: int, num_inputs: int, layer: int = 0, kind: Any = "o", seed: int = 1) -> Unit:
    """A unit of random weights; its hash is of these weights alone."""
    generator = np.random.default_rng([seed, layer, num_outputs, num_inputs])
    weights = generator.integers(-127, 128, (num_outputs, num_inputs), dtype=np.int8)
    ref = UnitRef(layer, kind, num_outputs, num_inputs, hashlib.sha256(weights.tobytes()).digest())
    norm = float(np.sqrt((weights.astype(np.int64) ** 2).sum(axis=1).max()))
    return Unit(ref, weights, np.ones(num_outputs, np.float32), norm, None)


def make_rows(num_rows: int, num_inputs: int, seed: int = 1) -> np.ndarray:
    """Activations of 12 bits, int16 `[num_rows, num_inputs]`."""
    return np.random.default_rng([seed, num_rows]).integers(-2047, 2048, (num_rows, num_inputs), dtype=np.int16)


def weights_of(units: Sequence[Unit]) -> Callable[[bytes, bytes], np.ndarray | None]:
    """What a worker that holds these units looks them up with."""
    held = {(MODEL_ID, unit.ref.sha256): unit.weights for unit in units}
    return lambda model_id, unit: held.get((model_id, unit))


def identity(index: int) -> Identity:
    return Identity.from_seed(hashlib.sha256(b"test identity %d" % index).digest())
