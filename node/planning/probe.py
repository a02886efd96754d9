"""Measures the speed of this device, once per model, in some tens of milliseconds.

It runs the first decoder layer, with one row and with a few, and simulates one exchange with a peer on this device;
all other predictions are sums of these times.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from node.kernels.interface import Kernels
from node.model.decoder import Decoder
from node.model.linear import LocalLinear
from node.model.unit import Unit
from node.planning.figures import DeviceFigures, Line
from node.store.stored import StoredModel
from protocol.codec import encode_message
from protocol.limits import TILE_OUTPUTS
from protocol.linear.field import Floats, Sums
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role
from protocol.linear.shares import pad_rows
from protocol.linear.verification import UnitCheck, passes_gate, result_digest

PROBE_ROWS = 16
"""Rows of the second measurement: enough for the kernels' speed with many, few enough for a large model."""
SAMPLE_OUTPUTS = 1024
BUDGET_S = 0.015
"""Each measurement is repeated for so long."""
SESSION, NONCE, MODEL = bytes(16), 1, bytes(32)


def probe(model: StoredModel, kernels: Kernels) -> DeviceFigures:
    """Measure. This reads every unit of the first layer and the head, if they are here."""
    ends_s = _median_s(_ends(model, kernels))
    one, many = (_pass(model, kernels, rows, ends_s) for rows in (1, PROBE_ROWS))
    layer_units = [model.unit(ref.layer, ref.kind) for ref in model.units if ref.layer == 0]
    sample = _sample(model.unit(0, "gate_up"))
    if all(unit.held is not None for unit in layer_units):
        macs = sum(unit.ref.num_inputs * unit.ref.num_outputs for unit in layer_units)
        linear_s = _line(one.linear_s / macs, many.linear_s / macs)
    else:
        linear_s = _line(*(_linear_s(sample, kernels, rows) / sample.weights.size for rows in (1, PROBE_ROWS)))
    pads = pad_rows(bytes(32), 0, PROBE_ROWS, sample.ref.num_inputs)
    own_pads_s = _median_s(lambda: kernels.linear_field(sample.weights, pads))
    head = model.unit(None, "head").ref
    return DeviceFigures(
        ends_s=ends_s,
        head_s=one.head_s or head.num_inputs * head.num_outputs * linear_s.at(1),
        layer_float_s=_line(one.float_s, many.float_s),
        linear_s=linear_s,
        field_macs_per_s=PROBE_ROWS * sample.weights.size / own_pads_s,
        exchange_s=_exchange_line(sample, kernels),
    )


def _sample(unit: Unit) -> Unit:
    """Weights for the measurement: the unit's own, or zeros with just enough outputs to measure the kernels."""
    if unit.held is not None:
        return unit
    ref = replace(unit.ref, num_outputs=min(unit.ref.num_outputs, SAMPLE_OUTPUTS))
    zeros = np.zeros((ref.num_outputs, ref.num_inputs), dtype=np.int8)
    return Unit(ref, zeros, unit.scales[: ref.num_outputs], unit.max_row_norm, None)


def _linear_s(unit: Unit, kernels: Kernels, num_rows: int) -> float:
    rows = np.ones((num_rows, unit.ref.num_inputs), dtype=np.int16)
    return _median_s(lambda: kernels.linear_a12(unit.weights, rows))


class _PassTime(Struct, frozen=True):
    linear_s: float
    """0 for units that are not held here, as below."""
    head_s: float
    float_s: float


class _FirstLayer:
    """A model that looks to a decoder as if it had only one layer."""

    def __init__(self, model: StoredModel) -> None:
        self._model = model
        context_length = max(model.config.context_length, PROBE_ROWS)  # the measured rows are not a text
        self.config = replace(model.config, num_layers=1, context_length=context_length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _TimedLinear(LocalLinear):
    """Computes here and measures the time; for a unit that is not here, the sums are zeros."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__(kernels)
        self.layers_s = self.head_s = self.zeros_s = 0.0

    def count_here(self, num_units: int, seconds: float) -> None:
        self.layers_s += seconds

    def linear(self, unit: Unit, rows: NDArray[np.int16], floats: Floats | None = None) -> Sums:
        started = time.perf_counter()
        if unit.held is None:
            sums = np.zeros((len(rows), unit.ref.num_outputs), dtype=np.int32)
            self.zeros_s += time.perf_counter() - started
            return sums
        sums = self._kernels.linear_a12(unit.held, rows)
        seconds = time.perf_counter() - started
        if unit.ref.layer is None:
            self.head_s += seconds
        else:
            self.layers_s += seconds
        return sums


def _ends(model: StoredModel, kernels: Kernels) -> Callable[[], object]:
    head, hidden = model.unit(None, "head"), model.embedding_rows([0])
    sums = np.zeros((1, head.ref.num_outputs), dtype=np.int32)

    def play() -> None:
        model.embedding_rows([0])
        _rows, scales = kernels.norm_quantize(hidden, model.final_norm, model.config.rms_norm_eps, head.max_row_norm)
        kernels.dequantize(sums, scales, head.scales, None)

    return play


def _pass(model: StoredModel, kernels: Kernels, num_rows: int, ends_s: float) -> _PassTime:
    """Time of a pass through the first layer and the head."""
    executor = _TimedLinear(kernels)
    decoder = Decoder.of_units(cast(StoredModel, _FirstLayer(model)), kernels, executor)
    cache = decoder.new_cache()
    seen: list[tuple[float, float, float]] = []

    def play() -> None:
        executor.layers_s = executor.head_s = executor.zeros_s = 0.0
        decoder.forward([0] * num_rows, cache)
        cache.truncate(0)
        seen.append((executor.layers_s, executor.head_s, executor.zeros_s))

    whole_s = _median_s(play)
    linear_s, head_s, zeros_s = (sorted(times)[len(times) // 2] for times in zip(*seen, strict=True))
    return _PassTime(linear_s, head_s, max(whole_s - linear_s - head_s - zeros_s - ends_s, 0.0))


def _exchange_line(unit: Unit, kernels: Kernels) -> Line:
    """The client's own work for a chunk, by the number of elements sent: pads, share, message, gate, merge."""
    check = UnitCheck.of(unit.weights, kernels, secrets.token_bytes)
    per_row = unit.ref.num_inputs + unit.ref.num_outputs
    one, many = (_median_s(_exchange(unit, kernels, check, rows)) for rows in (1, PROBE_ROWS))
    each_s = max((many - one) / ((PROBE_ROWS - 1) * per_row), 0.0)
    return Line(max(one - each_s * per_row, 0.0), each_s)


def _exchange(unit: Unit, kernels: Kernels, check: UnitCheck, num_rows: int) -> Callable[[], object]:
    rows = np.ones((num_rows, unit.ref.num_inputs), dtype=np.int16)
    tiles = -(-unit.ref.num_outputs // TILE_OUTPUTS)
    binding = ChunkBinding(SESSION, NONCE, MODEL, unit.ref.sha256, Role.SHARE, 0, num_rows, 0, tiles)
    share = kernels.share(rows, pad_rows(bytes(32), 0, num_rows, unit.ref.num_inputs))
    answer = kernels.linear_field(unit.weights, share)
    result = LinearResult(result_digest(binding, answer), 0, answer)

    def play() -> None:
        pads = pad_rows(bytes(32), 0, num_rows, unit.ref.num_inputs)
        encode_message(Linear(binding, rows=kernels.share(rows, pads)), NONCE)
        passes_gate(binding, share, result, check, kernels, secrets.token_bytes)
        kernels.merge(answer, answer)

    return play


def _median_s(call: Callable[[], object]) -> float:
    """Median seconds of a call, of at least one; the first one is left out if there is time for more."""
    samples: list[float] = []
    started = time.perf_counter()
    while not samples or time.perf_counter() - started < BUDGET_S:
        before = time.perf_counter()
        call()
        samples.append(time.perf_counter() - before)
    rest = sorted(samples[1:] or samples)
    return rest[len(rest) // 2]


def _line(one_s: float, many_s: float) -> Line:
    """Seconds by the number of rows, from the two measurements."""
    each_s = max((many_s - one_s) / (PROBE_ROWS - 1), 0.0)
    return Line(max(one_s - each_s, 0.0), each_s)
