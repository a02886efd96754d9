"""The answer to one request, waited for, judged and merged in one C call (direct.c), where nothing else is owed.

It is the gate of `protocol.linear.verification` for the one answer that is expected; everything else is handed on,
frames and all, and means what it means without this.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import zmq
from msgspec import Struct

from node.execution.peer import Request
from node.kernels import checks
from node.kernels.interface import Kernels, NativeFunctions
from node.transport.channel import Channel
from node.transport.poller import Descriptor
from protocol.discreet import Discreet
from protocol.envelope import Frame
from protocol.limits import FREIVALDS_VECTORS
from protocol.linear.field import Elements, Sums
from protocol.linear.messages import LinearResult
from protocol.linear.quick import around_result
from protocol.linear.verification import DIGEST_DOMAIN, UnitCheck

MAX_WATCHED = 8
"""Descriptors that may end a wait, as in direct.c."""
_FD, _DONTWAIT = int(zmq.FD), int(zmq.DONTWAIT)


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


class DirectAnswers:
    """Used by the session's thread alone.

    Args:
        library: the extension.
        calls: the struct of functions that it calls.
    """

    def __init__(self, library: Any, calls: Any) -> None:
        self._ffi, self._lib = library.ffi, library.lib
        direct = self._lib.direct_new(calls)
        if direct == self._ffi.NULL:
            raise MemoryError("no memory for the state of a wait")
        self._direct = self._ffi.gc(direct, self._lib.direct_free)
        self._answer = self._ffi.new("struct answer *")
        self._numbers = self._ffi.typeof("uint32_t[]")
        self._integers = self._ffi.typeof("int32_t[]")
        self._bytes = self._ffi.typeof("uint8_t[]")

    def wait(
        self, channel: Channel, request: Request, check: UnitCheck, products: Elements, wakes: int, timeout_s: float
    ) -> Outcome:
        """Wait for the answer to the only request that a peer owes, or for anything else to happen.

        Args:
            channel: the peer's, which has a socket.
            products: `[T, N]`, the verified products of the pads of the request's rows.
            wakes: a descriptor that ends the wait.
        """
        answer, binding = self._answer, request.binding
        vectors, projections = check.slice(binding.tile_start, binding.tile_end)
        num_rows, num_outputs = products.shape
        if vectors.shape[1] != num_outputs or request.inputs.shape != (num_rows, projections.shape[1]):
            return Outcome(0.0)
        sums = np.empty(products.shape, np.int32)
        prefix, suffix = around_result(request.id, num_rows, num_outputs)
        read = self._ffi.from_buffer
        kept = (
            read(self._bytes, prefix),
            read(self._bytes, suffix),
            read(self._bytes, bound := DIGEST_DOMAIN + binding.encoded),
            read(self._numbers, checks.array(vectors, "vectors", np.uint32, 2)),
            read(self._numbers, checks.array(projections, "projections", np.uint32, 2)),
            read(self._numbers, checks.array(request.inputs, "inputs", np.uint32, 2)),
            read(self._numbers, checks.array(products, "products", np.uint32, 2)),  # a frame may lie anywhere
            read(self._integers, sums),
        )
        answer.prefix, answer.suffix, answer.bound = kept[:3]
        answer.prefix_size, answer.suffix_size, answer.bound_size = len(prefix), len(suffix), len(bound)
        answer.vectors, answer.projections, answer.inputs, answer.products, answer.sums = kept[3:]
        answer.num_vectors, answer.num_inputs = projections.shape
        answer.num_rows, answer.num_outputs = num_rows, num_outputs
        answer.timeout_ns = int(1e9 * timeout_s)
        self._listen(channel, wakes)
        outcome = self._lib.direct_wait(self._direct, answer)
        waited_s = answer.waited_ns / 1e9
        if outcome == self._lib.DIRECT_MERGED:
            seconds = answer.verify_ns / 1e9, answer.hash_ns / 1e9, answer.merge_ns / 1e9
            return Outcome(waited_s, sums, answer.compute_us, answer.num_bytes, *seconds)
        return Outcome(waited_s, frames=self._frames(channel) if outcome == self._lib.DIRECT_MESSAGE else None)

    def _listen(self, channel: Channel, wakes: int) -> None:
        """Wait on the socket of a peer, and on what tells that its connection has changed."""
        answer, socket = self._answer, channel.socket
        assert socket is not None, "a request is on its way"
        watched = [wakes, *(one.fd for one in channel.pollables if isinstance(one, Descriptor))][:MAX_WATCHED]
        answer.socket = self._ffi.cast("void *", socket.underlying)
        answer.descriptor = socket.get(_FD)
        answer.num_watched = len(watched)
        answer.watched[0 : len(watched)] = watched

    def _frames(self, channel: Channel) -> list[Frame]:
        """The message that was left, whole."""
        direct, frames = self._direct, list[Frame]()
        for number in range(self._lib.direct_num_parts(direct)):
            size = self._lib.direct_part_size(direct, number)
            frames.append(bytes(self._ffi.buffer(self._lib.direct_part(direct, number), size)))
        has_more = bool(self._lib.direct_has_more(direct))
        while has_more and channel.socket is not None:
            frame = channel.socket.recv(_DONTWAIT, copy=False)
            frames.append(frame.buffer)
            has_more = frame.more
        self._lib.direct_drop(direct)
        return frames


def direct_answers(kernels: Kernels) -> DirectAnswers | None:
    """What this machine can wait with; None where it has not all functions that this needs."""
    functions = kernels.functions
    if functions is None or sys.byteorder != "little":
        return None
    try:
        library = import_module("node.execution._direct")
        return DirectAnswers(library, _calls_of(library.ffi, functions))
    except (ImportError, AttributeError, OSError):
        return None


def _calls_of(ffi: Any, functions: NativeFunctions) -> Any:
    """The functions of libzmq and of libsodium as the Python packages have loaded them, and those of the kernels.

    Raises:
        AttributeError: one is not there.
        ImportError: a package has another form.
    """
    backend: Any = import_module("zmq.backend.cython._zmq")
    library = ctypes.CDLL(backend.__file__)  # it was loaded with libzmq, which is searched for a name, too
    sodium = import_module("nacl._sodium")
    calls = ffi.new("struct calls *")

    def fill(name: str, address: int) -> None:
        setattr(calls, name, ffi.cast(ffi.typeof(getattr(calls, name)), address))

    for name, function in (
        ("message_init", library.zmq_msg_init),
        ("message_receive", library.zmq_msg_recv),
        ("message_close", library.zmq_msg_close),
        ("message_more", library.zmq_msg_more),
        ("message_size", library.zmq_msg_size),
        ("message_data", library.zmq_msg_data),
        ("get_option", library.zmq_getsockopt),
    ):
        fill(name, ctypes.cast(function, ctypes.c_void_p).value or 0)
    fill("fast_sha256", _libcrypto_sha256())
    sha256 = sodium.ffi.addressof(sodium.lib, "crypto_hash_sha256")
    fill("sha256", int(sodium.ffi.cast("uintptr_t", sha256)))
    fill("dots_agree", functions.dots_agree)
    fill("merge", functions.merge)
    calls.option_events, calls.poll_in, calls.do_not_wait = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.DONTWAIT)
    calls.level = functions.level
    return calls


def _libcrypto_sha256() -> int:
    """`SHA256` of the libcrypto that Python's hashes come from; 0 where it is not to be found."""
    try:
        hashes: Any = import_module("_hashlib")
        return ctypes.cast(ctypes.CDLL(hashes.__file__).SHA256, ctypes.c_void_p).value or 0
    except (ImportError, AttributeError, OSError, TypeError):
        return 0


def can_settle(request: Request, products: Elements) -> bool:
    """Whether the gate of an answer is the one of few rows of elements, which direct.c has."""
    fits = len(products) == len(request.inputs) <= FREIVALDS_VECTORS
    return fits and request.binding.role in LinearResult.ROLES
