"""Linear layers for others: stateless, exact, and none the wiser.

A request holds a seed or a share, a unit's hash and a slice of its output tiles; the answer is `W b mod p` and a
digest that binds it to the request. Nothing is kept between requests but the memory-mapped weights.
A request with plain rows is answered for a device of the same owner alone: `node.transport.data` sees to that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from node.errors import KekahydeError, ModelError
from protocol.field import Elements, Floats, Sums, Weights
from protocol.limits import TILE_OUTPUTS, max_rows_per_chunk
from protocol.messages import (
    ChunkBinding,
    ErrorCode,
    ErrorReply,
    Linear,
    LinearResult,
    TrustedLinear,
    TrustedResult,
)
from protocol.shares import pad_rows
from protocol.verification import result_digest

log = logging.getLogger(__name__)

WeightsOf = Callable[[bytes, bytes], Weights | None]
"""Int8 weights `[N, K]` of (model id, unit hash), or None where this node does not hold them."""
RowNormOf = Callable[[bytes, bytes], float | None]
"""Largest Euclidean norm of a row of a whole unit, by which activations are quantized; None where it is not held."""


class FieldKernels(Protocol):
    """What a worker needs of a kernel backend."""

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        """`weights [N, K]`, `rows [T, K]` -> `[T, N]` mod p."""

    def all_canonical(self, elements: Elements) -> bool:
        """Whether every element is below p."""

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[NDArray[np.int16], Floats]:
        """Integers of 12 bits and a scale for each row of `hidden [T, K]`; ValueError where one is not finite."""

    def linear_a12(self, weights: Weights, rows: NDArray[np.int16]) -> Sums:
        """`weights [N, K]`, `rows [T, K]` -> `[T, N]`."""


In = TypeVar("In", bound=np.generic)
Out = TypeVar("Out", bound=np.generic)

PART_S = 0.04
"""A request is computed in parts of about so long; between two it can be cancelled."""
FIRST_MACS_PER_S = 1e9
MIN_MEASURED_MACS = 10_000_000
"""Smaller requests say little about speed."""
SPEED_WEIGHT = 0.3


class RequestError(KekahydeError):
    """A request that cannot be served, with the code that goes back."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class LinearWorker:
    """Answers one request at a time; kernels spread the work over threads themselves."""

    def __init__(
        self, kernels: FieldKernels, weights_of: WeightsOf, row_norm_of: RowNormOf = lambda model_id, unit: None
    ) -> None:
        self._kernels = kernels
        self._weights_of = weights_of
        self._row_norm_of = row_norm_of
        self.answered = 0
        """Requests that were computed for others since the start."""
        self.wanted: Callable[[], bool] = lambda: True
        """Asked between the parts of a long request; False where whoever asked has cancelled it."""
        self._macs_per_s = FIRST_MACS_PER_S

    def answer(self, request: Linear | TrustedLinear) -> LinearResult | TrustedResult | ErrorReply:
        """The result, or an error for the client; never raises on what a peer can send."""
        started = time.perf_counter()
        self.answered += 1
        try:
            if isinstance(request, TrustedLinear):
                sums = self.compute_plain(request)
                return TrustedResult(result_digest(request.binding, sums), _us_since(started), sums)
            rows = self.compute(request)
        except RequestError as exc:
            return ErrorReply(exc.code, str(exc))
        except ModelError as exc:
            log.error("a unit cannot be served: %s", exc)
            return ErrorReply(ErrorCode.UNAVAILABLE, "the unit cannot be read here")
        except Exception:  # whatever it is (memory, say), one request must not end the service
            log.exception("a request could not be computed")
            return ErrorReply(ErrorCode.INTERNAL, "this node failed to compute the request")
        return LinearResult(result_digest(request.binding, rows), _us_since(started), rows)

    def compute(self, request: Linear) -> Elements:
        """`[num_rows, outputs]` u32; raises RequestError for a unit, slice or size that is not served."""
        weights = self._slice(request.binding)
        return self._in_parts(self._kernels.linear_field, weights, self._rows(request, weights.shape[1]))

    def compute_plain(self, request: TrustedLinear) -> Sums:
        """`W xq` of the rows as they are quantized everywhere, `[num_rows, outputs]` i32; raises RequestError."""
        weights, binding = self._slice(request.binding), request.binding
        norm = self._row_norm_of(binding.model_id, binding.unit)
        if norm is None:
            raise RequestError(ErrorCode.NOT_FOUND, "this unit is not held here")
        if request.rows.shape != (binding.num_rows, weights.shape[1]):
            raise RequestError(ErrorCode.INVALID, f"rows of this unit have {weights.shape[1]} elements")
        try:
            rows, _scales = self._kernels.quantize(request.rows, norm)
        except ValueError as exc:
            raise RequestError(ErrorCode.INVALID, "a row holds a value that is not finite") from exc
        return self._in_parts(self._kernels.linear_a12, weights, rows)

    def _in_parts(
        self, linear: Callable[[Weights, NDArray[In]], NDArray[Out]], weights: Weights, rows: NDArray[In]
    ) -> NDArray[Out]:
        """`[T, N]` of weights `[N, K]`: whole tiles of outputs at a time, so that a cancelled request ends soon."""
        started, macs = time.perf_counter(), weights.size * len(rows)
        num_parts = max(1, round(macs / (self._macs_per_s * PART_S)))
        num_tiles = -(-len(weights) // TILE_OUTPUTS)
        step = TILE_OUTPUTS * -(-num_tiles // num_parts)
        parts = []
        for start in range(0, len(weights), step):
            if start and not self.wanted():
                raise RequestError(ErrorCode.CANCELLED, "the request was cancelled")
            parts.append(linear(weights[start : start + step], rows))
        if macs >= MIN_MEASURED_MACS:
            speed = macs / (time.perf_counter() - started)
            self._macs_per_s += SPEED_WEIGHT * (speed - self._macs_per_s)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _slice(self, binding: ChunkBinding) -> Weights:
        """The weights that a request is about, where its size is served."""
        weights = self._weights_of(binding.model_id, binding.unit)
        if weights is None:
            raise RequestError(ErrorCode.NOT_FOUND, "this unit is not held here")
        if (binding.tile_end - 1) * TILE_OUTPUTS >= weights.shape[0]:
            raise RequestError(ErrorCode.INVALID, "the unit has fewer tiles")
        weights = weights[binding.tile_start * TILE_OUTPUTS : binding.tile_end * TILE_OUTPUTS]
        if binding.num_rows > max_rows_per_chunk(weights.shape[1], weights.shape[0]):
            raise RequestError(ErrorCode.EXHAUSTED, "more rows than one chunk of this unit may have")
        return weights

    def _rows(self, request: Linear, num_inputs: int) -> Elements:
        binding = request.binding
        if request.seed is not None:
            return pad_rows(request.seed, binding.row_start, binding.row_end, num_inputs)
        rows = request.rows
        if rows is None or rows.shape != (binding.num_rows, num_inputs):
            raise RequestError(ErrorCode.INVALID, f"rows of this unit have {num_inputs} elements")
        if not self._kernels.all_canonical(rows):
            raise RequestError(ErrorCode.INVALID, "an element is not below p")
        return rows


def _us_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1e6)
