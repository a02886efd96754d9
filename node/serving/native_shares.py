"""Shares of a peer that asks alone, answered in one C call after the other (node/native/shares.c).

A kind of share is known once one of it was answered the usual way: so everything that the usual way refuses is
refused there. Whatever C is not told of, it leaves as it came.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import zmq
from msgspec import Struct
from msgspec.structs import asdict

from node.native.library import Native, native
from node.native.mail import parts_taken, property_of_sender, whole_message
from node.serving.outbox import TRACKED_BYTES
from node.serving.worker import MIN_MEASURED_MACS, LinearWorker
from protocol.discreet import Discreet
from protocol.envelope import Frame
from protocol.linear.field import Weights
from protocol.linear.quick import ShareForms, ShareRest, after_micros
from protocol.linear.verification import DIGEST_DOMAIN

MAX_LISTENED = 64
"""Descriptors that may end a visit, as in shares.c."""
QUIET_S = 0.02
"""A visit ends after so long without a share."""
VISIT_S = 0.05
"""A visit ends after so long: what other threads have decided meanwhile (a pause, a ban) is asked for between two."""
_FD = int(zmq.FD)


class Visit(Discreet, Struct, frozen=True):
    """What came of a call."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("message", "unsent")
    model_id: bytes = b""
    """What the shares were about."""
    num_answered: int = 0
    num_rows: int = 0
    num_received: int = 0
    """Bytes of what was answered,"""
    num_sent: int = 0
    """and of the answers, whether or not they could be sent."""
    message: Sequence[zmq.Frame] | None = None
    """Something else that came, with its route."""
    unsent: Sequence[Frame] | None = None
    """The last answer, without its route, where libzmq does not take it now."""
    last_at: float = 0.0
    """When the last answer left, or was left, by `time.monotonic`."""
    is_news: bool = False
    """Whether it ended because this thread is wanted, or because the peer does not wait for its answers."""


class _TakenFrame(zmq.Frame):
    """A frame that C has taken, with what libzmq knows of its sender."""

    properties: Mapping[str, str | None] = MappingProxyType({})

    def get(self, option: Any) -> Any:
        if option in self.properties:
            return self.properties[option]
        return super().get(option)


class NativeShares:
    """Used by the data plane's thread alone."""

    def __init__(self, found: Native, worker: LinearWorker) -> None:
        self._native, self._ffi, self._lib = found, found.ffi, found.lib
        self._worker = worker
        self.is_asked = False
        """Whether the last share that was answered the usual way is one that C can answer, as the next one may be."""
        self._kinds: dict[bytes, tuple[Any, ...]] = {}
        """By what follows the nonce in their headers: what C reads of them."""
        self._units: dict[bytes, weakref.ref[Weights]] = {}
        """The weights that they are about, by unit. Between visits nothing here keeps them."""
        self._model_id = b""
        """A visit is for one model."""
        self._bytes = self._ffi.typeof("uint8_t[]")
        forms, values = self._ffi.new("struct share_forms *"), asdict(ShareForms())
        forms.binding_begins = values.pop("binding_begins")
        self._kept = [self._fill(forms, name, value) for name, value in (("domain", DIGEST_DOMAIN), *values.items())]
        shares = self._lib.shares_new(found.calls, forms)
        if shares == self._ffi.NULL:
            raise MemoryError("no memory for the kinds of shares")
        self._shares = self._ffi.gc(shares, self._lib.shares_free)
        self._visit = self._ffi.new("struct visit *")
        self._visit.quiet_ns, self._visit.limit_ns = int(1e9 * QUIET_S), int(1e9 * VISIT_S)
        self._visit.least_macs = MIN_MEASURED_MACS

    def learn(self, rest: ShareRest) -> None:
        """A share like this was answered: from now on C may answer such."""
        num_rows = rest.num_rows
        self.is_asked = rest.encoded in self._kinds
        if self.is_asked:
            return
        weights = self._worker.native_weights(rest)
        if weights is None or 4 * num_rows * len(weights[1]) >= TRACKED_BYTES:
            return
        whole, part = weights
        known = self._units.get(rest.unit)
        if self._model_id != rest.model_id or (known is not None and known() is not whole):
            self.forget()  # a unit that was loaded anew lies elsewhere in memory
        kind = self._ffi.new("struct share_kind *")
        kept = self._fill(kind, "rest", rest.encoded), self._fill(kind, "suffix", after_micros(num_rows, len(part)))
        kind.weights = self._ffi.cast("int8_t *", part.ctypes.data)
        kind.binding_size, kind.num_rows = rest.binding_size, num_rows
        kind.num_outputs, kind.num_inputs = part.shape
        if not self._lib.shares_add(self._shares, kind):
            self.forget()  # it is learnt with the next one
            return
        self._kinds[rest.encoded], self._units[rest.unit], self._model_id = kept, weakref.ref(whole), rest.model_id

    def forget(self) -> None:
        """Nothing is known any more."""
        self._lib.shares_forget(self._shares)
        self._kinds.clear()
        self._units.clear()

    def serve(self, router: Any, route: bytes, listened: Sequence[int]) -> Visit:
        """Answer what a connection asks for, until it is quiet, or something else happens.

        Args:
            listened: descriptors that end it.
        """
        held = self._held() if len(listened) <= MAX_LISTENED else []
        if not held:
            return Visit()
        visit, read = self._visit, self._fill(self._visit, "route", route)
        visit.socket, visit.descriptor = self._ffi.cast("void *", router.underlying), router.get(_FD)
        visit.num_listened = len(listened)
        visit.listened[0 : len(listened)] = list(listened)
        outcome = self._lib.shares_serve(self._shares, visit)
        message = self._message(router) if outcome == self._lib.SHARES_MESSAGE else None
        unsent = self._unsent() if outcome == self._lib.SHARES_UNSENT else None
        self._lib.shares_drop(self._shares)
        self._worker.answered_natively(visit.num_answered, visit.macs, visit.computing_ns / 1e9)
        del held, read
        return Visit(
            model_id=self._model_id,
            num_answered=visit.num_answered,
            num_rows=visit.num_rows,
            num_received=visit.received_bytes,
            num_sent=visit.sent_bytes + sum(map(len, unsent or ())),
            message=message,
            unsent=unsent,
            last_at=visit.last_ns / 1e9,
            is_news=outcome == self._lib.SHARES_NEWS,
        )

    def _held(self) -> list[Weights]:
        """The weights of all kinds, which C reads meanwhile; none where any of them is not served now."""
        held = []
        for unit, known in self._units.items():
            weights = self._worker.served_weights(self._model_id, unit)
            if weights is None or weights is not known():
                self.forget()
                return []
            held.append(weights)
        return held

    def _message(self, router: Any) -> list[zmq.Frame]:
        mail = self._lib.shares_mail(self._shares)
        properties = {name: property_of_sender(self._native, mail, name) for name in ("User-Id", "__fd")}
        frames = [zmq.Frame(frame) for frame in whole_message(self._native, mail, router)]
        last = _TakenFrame(frames[-1].buffer)
        last.properties = properties
        return [*frames[:-1], last]

    def _unsent(self) -> list[Frame]:
        return parts_taken(self._native, self._lib.shares_answer(self._shares))[1:]

    def _fill(self, struct: Any, name: str, value: bytes) -> Any:
        """Set a pointer and the size beside it; what keeps the bytes where they are."""
        kept = self._ffi.from_buffer(self._bytes, value)
        setattr(struct, name, kept)
        setattr(struct, f"{name}_size", len(value))
        return kept


def native_shares(worker: LinearWorker) -> NativeShares | None:
    """What this machine can answer with; None where it has not all functions that this needs."""
    found = native(worker.functions)
    return None if found is None else NativeShares(found, worker)
