"""Computes linear layers for others, stateless and exact; the rows that a worker sees tell it nothing.

A request holds a seed or a share, a unit's hash and a slice of its output tiles; the answer is `W b mod p` and a
digest that binds it to the request. Only the memory-mapped weights are kept between requests. An answer is
computed in parts, between which the thread can read, serve somebody else, or drop the rest.
A request with plain rows is answered for a device of the same owner alone: `node.serving.data_plane` sees to that.
So are steps of a span (`node.serving.spans`), whose caches are kept between requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from node.errors import ModelError
from node.kernels.interface import NativeFunctions
from node.serving.refusal import RequestError
from node.serving.spans import SpanCaches
from protocol.limits import TILE_OUTPUTS, max_rows_per_chunk
from protocol.linear.field import Elements, Floats, Sums, Weights
from protocol.linear.messages import (
    ChunkBinding,
    Linear,
    LinearResult,
    TrustedLinear,
    TrustedResult,
    UnitRequest,
    WorkResult,
)
from protocol.linear.quick import ShareHeader, ShareRest
from protocol.linear.shares import pad_rows
from protocol.linear.verification import ResultDigest, digest_of
from protocol.message import ErrorCode, ErrorReply
from protocol.spans.messages import SpanPass, SpanResult, SpanStep
from protocol.work import WorkRequest

log = logging.getLogger(__name__)

WeightsOf = Callable[[bytes, bytes], Weights | None]
"""Int8 weights `[N, K]` of (model id, unit hash), or None where this node does not hold them."""
RowNormOf = Callable[[bytes, bytes], float | None]
"""Largest Euclidean norm of a row of a whole unit, by which activations are quantized; None where it is not held."""


class FieldKernels(Protocol):
    """What a worker needs of a kernel backend."""

    @property
    def keeps_weights(self) -> bool:
        """Whether it keeps weights that it was given, whole: a computation is then cut by rows alone."""

    @property
    def functions(self) -> NativeFunctions | None:
        """What C code may call instead; None where there is no such function."""

    def linear_field(self, weights: Weights, rows: Elements) -> Elements:
        """`weights [N, K]`, `rows [T, K]` -> `[T, N]` mod p; ValueError where an element is not below p."""

    def quantize(self, hidden: Floats, max_row_norm: float) -> tuple[NDArray[np.int16], Floats]:
        """Integers of 12 bits and a scale for each row of `hidden [T, K]`; ValueError where one is not finite."""

    def linear_a12(self, weights: Weights, rows: NDArray[np.int16]) -> Sums:
        """`weights [N, K]`, `rows [T, K]` -> `[T, N]`."""


Answer = WorkResult | SpanResult | ErrorReply
Parts = Generator[None, None, Answer]
"""A computation: each step is one part, the answer comes with the last."""
RowsOf = Callable[[int, int], NDArray[Any]]
"""Rows `[start, end)` of a request, `[end - start, K]`, in the form that its kernel takes."""

SHORT_S = 0.0005
"""Where others ask too, requests that are expected to take longer are computed in parts, beside the data plane: half
an exchange on one machine."""
SHARED_PART_S = 0.002
"""Length of a part while others ask too: the longest wait of a long request whose turn comes while a part is
computed."""
ALONE_PART_S = 0.01
"""Length of a part while nobody else asks: the longest wait of the first request of somebody else."""
BULK_PART_S = 0.05
"""The same for requests that are computed beside the data plane, which hears others meanwhile: handing a part over
costs up to a millisecond, and a step through the layers of a small model takes some ten."""
MIN_BLOCK_ROWS = 32
"""A part has at least so many rows where it can be cut by outputs instead: with fewer rows, reading the weights costs
most."""
FEW_ROWS = 8
"""Requests with more rows are computed alone: for so many, reading the weights no longer costs most."""
FIRST_MACS_PER_S = 4e9
MIN_MEASURED_MACS = 10_000_000
"""Smaller requests are not used to measure speed."""
SPEED_WEIGHT = 0.3


class _Stopwatch:
    """Seconds in which a computation ran, not those in which it waited for its turn."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._resumed_at = time.perf_counter()

    def pause(self) -> None:
        self.seconds += time.perf_counter() - self._resumed_at

    def resume(self) -> None:
        self._resumed_at = time.perf_counter()


class LinearWorker:
    """Answers requests part by part; kernels spread each part over threads themselves."""

    def __init__(
        self,
        kernels: FieldKernels,
        weights_of: WeightsOf,
        row_norm_of: RowNormOf = lambda model_id, unit: None,
        spans: SpanCaches | None = None,
    ) -> None:
        """
        Args:
            spans: computes spans; None: none are computed here.
        """
        self._kernels = kernels
        self.spans = spans
        self.weights_of = weights_of
        self._row_norm_of = row_norm_of
        self.answered = 0
        """Requests that were computed for others since the start."""
        self.part_s = ALONE_PART_S
        """Length of the parts that are computed from now on, seconds."""
        self._macs_per_s = FIRST_MACS_PER_S

    def answer(self, request: WorkRequest) -> Answer:
        """The result, or an error for the client, computed without a pause."""
        parts = self.parts(request)
        while True:
            try:
                next(parts)
            except StopIteration as finished:
                answer: Answer = finished.value
                return answer

    def parts(self, request: WorkRequest) -> Parts:
        """Compute the result, or an error for the client, part by part; never raises on what a peer can send."""
        self.answered += 1
        try:
            return (yield from HANDLERS[type(request)](self, request))
        except Exception as exc:
            return _error_of(exc)

    def parts_of_all(self, requests: Sequence[WorkRequest]) -> Generator[None, None, list[Answer]]:
        """The same for one request, or for several that `together` allows."""
        if len(requests) == 1:
            return [(yield from self.parts(requests[0]))]
        self.answered += len(requests)
        try:
            return (yield from self._steps(requests))  # type: ignore[arg-type]
        except Exception as exc:
            return [_error_of(exc)] * len(requests)

    def product(self, share: ShareHeader, rows: Elements, most_s: float) -> tuple[LinearResult, float] | None:
        """The result of a share that takes one part, computed now, and the seconds that it was expected to take; None
        for any other, which `parts` is for.

        Args:
            rows: `[num_rows, K]`, those of the share.
            most_s: how long it may be expected to take.
        """
        try:
            weights = self._slice(share.rest)
            expected_s = len(rows) * weights.size / self._macs_per_s
            if not self._is_one_part(len(rows), weights) or expected_s > most_s or rows.shape[1] != weights.shape[1]:
                return None
            result = self._whole(weights, lambda: rows, share.encoded)
        except Exception:
            return None  # it fails again in `parts`, which says what the client is told of it
        self.answered += 1
        return result, expected_s

    @property
    def functions(self) -> NativeFunctions | None:
        """The functions with which C answers shares as `product` does; None where it cannot."""
        return None if self._kernels.keeps_weights else self._kernels.functions

    def served_weights(self, model_id: bytes, unit: bytes) -> Weights | None:
        """The weights of a unit; None where they are not served now, for whatever reason."""
        try:
            return self.weights_of(model_id, unit)
        except (ModelError, OSError):
            return None  # who asks for them is told so

    def native_weights(self, rest: ShareRest) -> tuple[Weights, Weights] | None:
        """The weights of a unit, and the slice of them that such shares are about: what C may multiply; None where
        they are not served any more. A share like this was just answered."""
        whole = self.served_weights(rest.model_id, rest.unit)
        if whole is None or not whole.flags.c_contiguous or whole.shape[1] != rest.shape[1]:
            return None
        return whole, _tiles(whole, rest)

    def answered_natively(self, num_requests: int, macs: int, seconds: float) -> None:
        """C has answered shares; those that count as a measurement took so long."""
        self.answered += num_requests
        if macs:
            self._measured(macs, seconds)

    def together(self, request: WorkRequest, other: WorkRequest) -> bool:
        """Whether two requests may be computed together, which reads the weights once: steps of a few rows through
        the same layers. Shares gain nothing by it: multiplying them takes longer than reading the weights."""
        if not isinstance(request, SpanStep) or not isinstance(other, SpanStep):
            return False
        layers = [(one.model_id, one.binding.first, one.binding.end, one.rows.shape[1]) for one in (request, other)]
        return layers[0] == layers[1] and max(request.num_rows, other.num_rows) <= FEW_ROWS

    def has_ready(self, request: WorkRequest) -> bool:
        """Whether everything that a request needs is ready, so that it takes as long as is expected."""
        return not isinstance(request, SpanStep) or (self.spans is not None and self.spans.has_ready(request))

    def expected_s(self, request: WorkRequest) -> float:
        """How long a request is expected to take; never raises on what a peer can send."""
        if isinstance(request, SpanStep):
            return 0.0 if self.spans is None else self.spans.macs(request) / self._macs_per_s
        assert isinstance(request, UnitRequest), "there is no other work"
        binding = request.binding
        try:
            weights = self.weights_of(binding.model_id, binding.unit)
        except ModelError:
            return 0.0  # the answer says so
        if weights is None:
            return 0.0
        outputs = min(len(weights), (binding.tile_end - binding.tile_start) * TILE_OUTPUTS)
        return float(binding.num_rows * outputs * weights.shape[1] / self._macs_per_s)

    def _field_parts(self, request: Linear) -> Generator[None, None, LinearResult]:
        """The rows of a share, or the pads of a seed, times the slice."""
        weights, binding = self._slice(request.binding), request.binding
        rows_of = self._rows_of(request, weights.shape[1])
        if self._is_one_part(binding.num_rows, weights):  # nothing to gather
            return self._whole(weights, lambda: rows_of(0, binding.num_rows), binding.encoded)
        result = np.empty((binding.num_rows, len(weights)), np.uint32)
        digest, seconds = yield from self._fill(result, binding, self._linear_field, weights, rows_of)
        return LinearResult(digest, round(seconds * 1e6), result)

    def _whole(self, weights: Weights, rows_of_all: Callable[[], Elements], encoded: bytes) -> LinearResult:
        """The result of one part, for a binding that is encoded already."""
        started = time.perf_counter()
        result = self._linear_field(weights, rows_of_all())
        digest = digest_of(encoded, result)
        seconds = time.perf_counter() - started
        self._measured(weights.size * len(result), seconds)
        return LinearResult(digest, round(seconds * 1e6), result)

    def _linear_field(self, weights: Weights, rows: Elements) -> Elements:
        try:
            return self._kernels.linear_field(weights, rows)
        except ValueError as exc:
            raise RequestError(ErrorCode.INVALID, "an element is not below p") from exc

    def _plain_parts(self, request: TrustedLinear) -> Generator[None, None, TrustedResult]:
        """Rows as they are, quantized as everywhere, times the slice."""
        weights, binding = self._slice(request.binding), request.binding
        norm = self._row_norm_of(binding.model_id, binding.unit)
        if norm is None:
            raise RequestError(ErrorCode.NOT_FOUND, "this unit is not held here")
        if request.rows.shape != (binding.num_rows, weights.shape[1]):
            raise RequestError(ErrorCode.INVALID, f"rows of this unit have {weights.shape[1]} elements")
        max_row_norm = norm

        def rows_of(start: int, end: int) -> NDArray[np.int16]:
            try:
                return self._kernels.quantize(request.rows[start:end], max_row_norm)[0]
            except ValueError as exc:
                raise RequestError(ErrorCode.INVALID, "a row holds a value that is not finite") from exc

        sums = np.empty((binding.num_rows, len(weights)), np.int32)
        digest, seconds = yield from self._fill(sums, binding, self._kernels.linear_a12, weights, rows_of)
        return TrustedResult(digest, round(seconds * 1e6), sums)

    def _span_parts(self, request: SpanStep) -> Parts:
        """Hidden states through a run of layers."""
        return (yield from self._steps([request]))[0]

    def _steps(self, requests: Sequence[SpanStep]) -> Generator[None, None, list[Answer]]:
        """Steps through the same layers."""
        if self.spans is None:
            raise RequestError(ErrorCode.UNIMPLEMENTED, "this device computes no spans")
        outcomes = yield from self.spans.parts(requests, lambda: self.part_s)
        results = [outcome for outcome in outcomes if isinstance(outcome, SpanResult)]
        macs = sum(map(self.spans.macs, requests))
        if len(results) == len(requests):
            self._measured(macs, max(results[0].compute_us / 1e6, 1e-6))
        return [ErrorReply(one.code, str(one)) if isinstance(one, RequestError) else one for one in outcomes]

    def _fill(
        self,
        result: NDArray[Any],
        binding: ChunkBinding,
        linear: Callable[[Weights, NDArray[Any]], NDArray[Any]],
        weights: Weights,
        rows_of: RowsOf,
    ) -> Generator[None, None, tuple[bytes, float]]:
        """Compute `result [T, N]`, block by block; its digest and the seconds that it took."""
        watch, digest, row = _Stopwatch(), ResultDigest(binding), 0
        while row < len(result):
            num_rows, num_outputs = self._block(len(result) - row, weights)
            rows = rows_of(row, row + num_rows)
            for output in range(0, len(weights), num_outputs):
                if row or output:
                    watch.pause()
                    yield
                    watch.resume()
                part = weights[output : output + num_outputs]
                result[row : row + num_rows, output : output + len(part)] = linear(part, rows)
            digest.update(result[row : row + num_rows])
            row += num_rows
        watch.pause()
        self._measured(weights.size * len(result), watch.seconds)
        return digest.digest(), watch.seconds

    def _measured(self, macs: int, seconds: float) -> None:
        if macs >= MIN_MEASURED_MACS:
            self._macs_per_s += SPEED_WEIGHT * (macs / seconds - self._macs_per_s)

    def _block(self, num_rows: int, weights: Weights) -> tuple[int, int]:
        """Rows of these, and outputs of `weights [N, K]`, that make a part: all outputs where that leaves enough
        rows, else whole tiles of them."""
        macs = self._macs_per_s * self.part_s
        fitting = int(macs / weights.size)
        if self._kernels.keeps_weights:
            return min(num_rows, max(fitting, MIN_BLOCK_ROWS)), len(weights)
        if fitting >= min(num_rows, MIN_BLOCK_ROWS):
            return min(num_rows, fitting - fitting % MIN_BLOCK_ROWS or fitting), len(weights)
        block = min(num_rows, MIN_BLOCK_ROWS)
        tiles = max(1, int(macs / (block * weights.shape[1] * TILE_OUTPUTS)))
        return block, tiles * TILE_OUTPUTS

    def _is_one_part(self, num_rows: int, weights: Weights) -> bool:
        return self._block(num_rows, weights) == (num_rows, len(weights))

    def _slice(self, binding: ChunkBinding | ShareRest) -> Weights:
        """The weights that a request is about, where its size is served."""
        weights = self.weights_of(binding.model_id, binding.unit)
        if weights is None:
            raise RequestError(ErrorCode.NOT_FOUND, "this unit is not held here")
        if (binding.tile_end - 1) * TILE_OUTPUTS >= weights.shape[0]:
            raise RequestError(ErrorCode.INVALID, "the unit has fewer tiles")
        weights = _tiles(weights, binding)
        if binding.num_rows > max_rows_per_chunk(weights.shape[1], weights.shape[0]):
            raise RequestError(ErrorCode.EXHAUSTED, "more rows than one chunk of this unit may have")
        return weights

    def _rows_of(self, request: Linear, num_inputs: int) -> RowsOf:
        binding, seed, rows = request.binding, request.seed, request.rows
        if seed is not None:
            first = binding.row_start
            return lambda start, end: pad_rows(seed, first + start, first + end, num_inputs)
        if rows is None or rows.shape != (binding.num_rows, num_inputs):
            raise RequestError(ErrorCode.INVALID, f"rows of this unit have {num_inputs} elements")
        shares = rows
        return lambda start, end: shares[start:end]


def _tiles(weights: Weights, binding: ChunkBinding | ShareRest) -> Weights:
    """The rows of the tiles that a request is about."""
    return weights[binding.tile_start * TILE_OUTPUTS : binding.tile_end * TILE_OUTPUTS]


def _error_of(exc: Exception) -> ErrorReply:
    """What a client is told of a failure; whatever it is (memory, say), one request must not end the service."""
    match exc:
        case RequestError():
            return ErrorReply(exc.code, str(exc))
        case ModelError():
            log.error("a unit cannot be served: %s", exc)
            return ErrorReply(ErrorCode.UNAVAILABLE, "the unit cannot be read here")
        case _:
            log.error("a request could not be computed", exc_info=exc)
            return ErrorReply(ErrorCode.INTERNAL, "this node failed to compute the request")


HANDLERS: dict[type[WorkRequest], Callable[[LinearWorker, Any], Parts]] = {
    Linear: LinearWorker._field_parts,
    TrustedLinear: LinearWorker._plain_parts,
    SpanStep: LinearWorker._span_parts,
    SpanPass: LinearWorker._span_parts,
}
"""Kinds of work: each type of request with its handler."""
