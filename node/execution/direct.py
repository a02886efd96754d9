"""The answer to one request, waited for, judged and merged in one C call (direct.c), where nothing else is owed; and
where the next request is prepared, the layers up to it, and its share, in the same call.

It is the gate of `protocol.linear.verification` for the one answer that is expected; everything else is handed on,
frames and all, and means what it means without this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import zmq
from msgspec import Struct

from node.execution.peer import Request
from node.kernels import checks
from node.kernels.interface import Int16s, Kernels
from node.kernels.layers import Passage
from node.model.linear import WentOn
from node.native.library import Native, native
from node.native.mail import whole_message
from node.transport.channel import Channel
from node.transport.poller import Descriptor
from protocol.discreet import Discreet
from protocol.envelope import Frame
from protocol.limits import FREIVALDS_VECTORS
from protocol.linear.field import Elements, Sums
from protocol.linear.messages import ChunkBinding, LinearResult
from protocol.linear.quick import after_micros, before_digest
from protocol.linear.verification import DIGEST_DOMAIN, UnitCheck

MAX_WATCHED = 8
"""Descriptors that may end a wait, as in direct.c."""
MAX_EXPECTED = 4096
"""Most kinds of answers that are prepared: more than a large model's units have."""
_FD = int(zmq.FD)


class Ahead(Discreet, Struct, frozen=True):
    """The request that follows an answer, all but its rows."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("rows", "pads", "share", "header")
    channel: Channel
    header: Frame
    passage: Passage
    """The layers up to it."""
    rows: Int16s
    """`[T, K]`: where they write what is to be multiplied."""
    pads: Elements
    """`[T, K]`; nothing else uses them."""
    share: Elements
    """`[T, K]`, which is written."""


class AheadOutcome(Struct, frozen=True):
    """How far rows have gone on with the sums of an answer."""

    went_on: WentOn
    is_shared: bool
    """Whether the pads were used."""
    is_sent: bool
    layers_s: float
    share_s: float
    send_s: float


class Outcome(Discreet, Struct, frozen=True):
    """What came of a wait."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("sums", "frames")
    waited_s: float
    sums: Sums | None = None
    """`[T, N]`, exact, where the answer came and passed the gate."""
    compute_us: int = 0
    """What the peer says that it computed."""
    num_bytes: int = 0
    """Size of the answer."""
    verify_s: float = 0.0
    hash_s: float = 0.0
    """Of `verify_s`."""
    merge_s: float = 0.0
    frames: Sequence[Frame] | None = None
    """Another message, or one that is not right; None where none came."""
    ahead: AheadOutcome | None = None
    """Where the sums were there, and something was prepared."""


class _Expected(Struct, frozen=True):
    """What all answers about the same slice of a unit, with as many rows, have in common."""

    check: UnitCheck
    answer: Any
    """`struct answer *`, in which this is set."""
    shape: tuple[int, int]
    """Of an answer,"""
    num_inputs: int
    """and the width of the rows that it is for."""
    kept: tuple[Any, ...]
    """What the struct points to."""


class DirectAnswers:
    """Used by the session's thread alone."""

    def __init__(self, found: Native) -> None:
        self._native, self._ffi, self._lib = found, found.ffi, found.lib
        direct = self._lib.direct_new(found.calls)
        if direct == self._ffi.NULL:
            raise MemoryError("no memory for the state of a wait")
        self._direct = self._ffi.gc(direct, self._lib.direct_free)
        self._ways: WeakKeyDictionary[Channel, tuple[int, int, Any]] = WeakKeyDictionary()
        """By channel: its generation, the descriptor that wakes, and the `struct way *` that both belong to."""
        self._continuation = self._ffi.new("struct continuation *")
        self._expected: dict[tuple[bytes, int, int, int], _Expected] = {}
        """By unit, tiles and rows."""
        self._numbers = self._ffi.typeof("uint32_t[]")
        self._integers = self._ffi.typeof("int32_t[]")
        self._shorts = self._ffi.typeof("int16_t[]")
        self._bytes = self._ffi.typeof("uint8_t[]")

    def wait(
        self,
        channel: Channel,
        request: Request,
        check: UnitCheck,
        products: Elements,
        wakes: int,
        timeout_s: float,
        ahead: Ahead | None = None,
    ) -> Outcome:
        """Wait for the answer to the only request that a peer owes, or for anything else to happen.

        Args:
            channel: the peer's, which has a socket.
            products: `[T, N]`, the verified products of the pads of the request's rows.
            wakes: a descriptor that ends the wait.
            ahead: what is sent once the sums are there.
        """
        expected = self._of(request.binding, check)
        if products.shape != expected.shape or request.inputs.shape != (expected.shape[0], expected.num_inputs):
            return Outcome(0.0)
        answer, sums, read = expected.answer, np.empty(products.shape, np.int32), self._ffi.from_buffer
        prefix, bound = before_digest(request.id), DIGEST_DOMAIN + request.binding.encoded
        kept = (
            read(self._bytes, prefix),
            read(self._bytes, bound),
            read(self._numbers, checks.array(request.inputs, "inputs", np.uint32, 2)),
            read(self._numbers, checks.array(products, "products", np.uint32, 2)),  # a frame may lie anywhere
            read(self._integers, sums),
        )
        answer.prefix, answer.bound, answer.inputs, answer.products, answer.sums = kept
        answer.prefix_size, answer.bound_size = len(prefix), len(bound)
        answer.timeout_ns = int(1e9 * timeout_s)
        then, used = (self._ffi.NULL, None) if ahead is None else self._prepared(ahead)
        outcome = self._lib.direct_wait(self._direct, self._way(channel, wakes), answer, then)
        del used
        waited_s = answer.waited_ns / 1e9
        if outcome == self._lib.DIRECT_MERGED:
            seconds = answer.verify_ns / 1e9, answer.hash_ns / 1e9, answer.merge_ns / 1e9
            went_on = None if ahead is None else self._went_on()
            return Outcome(waited_s, sums, answer.compute_us, answer.num_bytes, *seconds, None, went_on)
        return Outcome(waited_s, frames=self._frames(channel) if outcome == self._lib.DIRECT_MESSAGE else None)

    def _prepared(self, ahead: Ahead) -> tuple[Any, tuple[Any, ...]]:
        """`struct continuation *`, and what it points to."""
        then, at, to, read = self._continuation, ahead.passage.at, ahead.passage.to, self._ffi.from_buffer
        if not ahead.rows.shape == ahead.pads.shape == ahead.share.shape:
            raise ValueError(f"rows {ahead.rows.shape}, pads {ahead.pads.shape} and share {ahead.share.shape}")
        if ahead.rows.dtype != np.int16 or not ahead.rows.flags.c_contiguous:
            raise ValueError(f"rows of {ahead.rows.dtype}: they are written where they are")
        socket = ahead.channel.socket
        assert socket is not None and not socket.closed, "its connection stands"
        kept = (
            read(self._shorts, ahead.rows),
            read(self._numbers, checks.array(ahead.pads, "pads", np.uint32, 2)),
            read(self._numbers, ahead.share, require_writable=True),
            read(self._bytes, ahead.header),
        )
        then.rows, then.pads, then.share, then.header = kept
        then.num_elements, then.header_size = ahead.share.size, len(ahead.header)
        then.run = self._ffi.cast("void *", ahead.passage.run)
        then.index, then.cached, then.unit = at.index, at.cached, at.unit
        then.next_index, then.next_cached, then.next_unit = to.index, to.cached, to.unit
        then.socket = self._ffi.cast("void *", socket.underlying)
        return then, kept

    def _went_on(self) -> AheadOutcome:
        then = self._continuation
        seconds = then.layers_ns / 1e9, then.share_ns / 1e9, then.send_ns / 1e9
        went_on = WentOn(then.reached, then.code)
        return AheadOutcome(went_on, bool(then.is_shared), bool(then.is_sent), *seconds)

    def _of(self, binding: ChunkBinding, check: UnitCheck) -> _Expected:
        """What answers to such requests have in common."""
        key = binding.unit, binding.tile_start, binding.tile_end, binding.num_rows
        expected = self._expected.get(key)
        if expected is not None and expected.check is check:
            return expected
        vectors, projections = check.slice(binding.tile_start, binding.tile_end)
        answer, read = self._ffi.new("struct answer *"), self._ffi.from_buffer
        num_rows, num_outputs = binding.num_rows, vectors.shape[1]
        suffix = after_micros(num_rows, num_outputs)
        kept = (
            read(self._bytes, suffix),
            read(self._numbers, checks.array(vectors, "vectors", np.uint32, 2)),
            read(self._numbers, checks.array(projections, "projections", np.uint32, 2)),
        )
        answer.suffix, answer.vectors, answer.projections = kept
        answer.suffix_size = len(suffix)
        answer.num_vectors, answer.num_inputs = projections.shape
        answer.num_rows, answer.num_outputs = num_rows, num_outputs
        if len(self._expected) >= MAX_EXPECTED:
            self._expected.clear()
        shape = num_rows, num_outputs
        expected = self._expected[key] = _Expected(check, answer, shape, projections.shape[1], kept)
        return expected

    def _way(self, channel: Channel, wakes: int) -> Any:
        """The socket of a peer, and what tells that its connection has changed."""
        known, socket = self._ways.get(channel), channel.socket
        assert socket is not None and not socket.closed, "a request is on its way"
        if known is not None and known[:2] == (channel.generation, wakes):
            return known[2]
        way = self._ffi.new("struct way *")
        watched = [wakes, *(one.fd for one in channel.pollables if isinstance(one, Descriptor))][:MAX_WATCHED]
        way.socket = self._ffi.cast("void *", socket.underlying)
        way.descriptor = socket.get(_FD)
        way.num_watched = len(watched)
        way.watched[0 : len(watched)] = watched
        self._ways[channel] = channel.generation, wakes, way
        return way

    def _frames(self, channel: Channel) -> list[Frame]:
        """The message that was left, whole."""
        frames = whole_message(self._native, self._lib.direct_mail(self._direct), channel.socket)
        self._lib.direct_drop(self._direct)
        return frames


def direct_answers(kernels: Kernels) -> DirectAnswers | None:
    """What this machine can wait with; None where it has not all functions that this needs."""
    found = native(kernels.functions)
    return None if found is None else DirectAnswers(found)


def can_settle(request: Request, products: Elements) -> bool:
    """Whether the gate of an answer is the one of few rows of elements, which direct.c has."""
    fits = len(products) == len(request.inputs) <= FREIVALDS_VECTORS
    return fits and request.binding.role in LinearResult.ROLES
