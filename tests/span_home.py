"""A client and devices that compute its layers, in this process; the devices fail in every way that they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import zmq
from made_parts import KERNELS, identity
from msgspec.structs import replace
from scripted_peer import ScriptedChannel

from node.errors import UnitUnavailableError
from node.execution.hybrid import HybridExecutor
from node.execution.interrupt import PassCancelledError
from node.execution.peer import SessionPeer
from node.kernels import select_kernels
from node.measures.peers import PeerMeasures
from node.model.cache import KVCache
from node.model.decoder import Decoder
from node.model.head import Head
from node.model.layers import UnitLayers
from node.model.span import SpanLayers
from node.serving.spans import Client, SpanCaches
from node.spans import SpanChain
from node.spans.device import SpanDevice
from node.spans.recheck import Again, Recheck
from node.spans.stage import Stage
from node.spans.witness import Witness, WitnessLayers
from node.store.stored import StoredModel
from protocol.codec import Received, decode_message, encode_message
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.field import Floats
from protocol.linear.messages import Role
from protocol.message import Cancel, ErrorCode, ErrorReply, Message
from protocol.spans.binding import SpanBinding, span_digest
from protocol.spans.messages import SpanClose, SpanOpen, SpanPass, SpanResult, SpanStep

LAYERS = 5
BINDING = SpanBinding(7, bytes(32), 0, 1, ())
IDS = [5, 9, 2, 61, 7, 7, 33, 12, 70, 3, 44, 8, 19, 25, 31, 6, 2, 40, 77, 1, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23]
Fault = Callable[["Worker", int, SpanStep], bool]
"""Does something else than an honest answer; returns whether it did."""
HandOn = Callable[["Worker", SpanStep, SpanResult], None]
"""Answers the client, and hands a result on or not."""


class Worker:
    """A device: honest, except for the steps that have a fault."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], model: StoredModel, index: int) -> None:
        self.channel = ScriptedChannel(context, identity(index).peer_id)
        self.channel.on_send = self._told
        self.caches = SpanCaches(KERNELS, lambda model_id: model, lambda: 1 << 30)
        self.faults: dict[int, Fault] = {}
        self.steps = 0
        self.opened = 0
        self.others: dict[PeerId, Worker] = {}
        """Those that it reaches."""
        self.hands_on: HandOn = straight
        self.peer = SessionPeer(self.channel.peer_id, Role.PLAIN, self.channel, PeerMeasures(1e9))  # type: ignore[arg-type]
        self.may_read = True
        self.device = SpanDevice(self.peer, model.model_id_bytes, lambda: self.may_read, model.config.hidden_size)

    def _told(self, frames: list[bytes], received: Received) -> None:
        match received.message:
            case SpanOpen() as opening:
                self.opened += 1
                self.channel.answer(self.caches.open(Client(self.channel.peer_id), opening), received.id)
            case SpanClose(cache):
                self.caches.close(self.channel.peer_id, cache)
            case SpanStep() as step:
                self._asked(step)
            case Cancel():
                pass

    def _asked(self, step: SpanStep) -> None:
        self.steps += 1
        message_id, fault = step.binding.nonce, self.faults.get(self.steps)
        if fault is not None and fault(self, message_id, step):
            return
        answer = self.compute(step)
        if isinstance(answer, SpanResult) and step.onward:
            self.hands_on(self, step, answer)
        else:
            self.channel.answer(answer, message_id)

    def reach(self, step: SpanStep, result: SpanResult) -> bool:
        """Hand a result on, in the form in which it travels."""
        first, *rest = step.onward
        other = self.others.get(first.peer_id)
        if other is None or other.channel.closed:
            return False
        message = SpanPass(first.binding, result.rows, tuple(rest), first.seal)
        frames = [bytes(frame) for frame in encode_message(message, first.binding.nonce)]
        other.handed(self.channel.peer_id, decode_message(frames, MAX_DATA_HEADER_BYTES).message)
        return True

    def handed(self, sender: PeerId, message: Message) -> None:
        """Another worker hands rows on to this one."""
        assert isinstance(message, SpanPass)
        if self.caches.client_of(sender, message) is not None:
            self._asked(message)

    def compute(self, step: SpanStep) -> Message:
        from node.serving.refusal import RequestError

        parts = self.caches.parts([step], lambda: 0.0)
        try:
            while True:
                next(parts)
        except StopIteration as finished:
            (outcome,) = finished.value
        if isinstance(outcome, RequestError):
            return ErrorReply(outcome.code, str(outcome))
        assert isinstance(outcome, SpanResult)
        return outcome


def straight(worker: Worker, step: SpanStep, result: SpanResult) -> None:
    """The next one has it, and has answered, before the client has it."""
    worker.channel.answer(replace(result, passed=worker.reach(step, result)), step.binding.nonce)


def behind(worker: Worker, step: SpanStep, result: SpanResult) -> None:
    """The next one has it after the client."""
    worker.channel.answer(replace(result, passed=True), step.binding.nonce)
    worker.reach(step, result)


def keeps(worker: Worker, step: SpanStep, result: SpanResult) -> None:
    """It cannot reach the next one."""
    worker.channel.answer(result, step.binding.nonce)


def drops(worker: Worker, step: SpanStep, result: SpanResult) -> None:
    """What it sent gets lost."""
    worker.channel.answer(replace(result, passed=True), step.binding.nonce)


def swaps(worker: Worker, step: SpanStep, result: SpanResult) -> None:
    """The next one gets other rows than the client."""
    worker.reach(step, replace(result, rows=result.rows * np.float32(2)))
    worker.channel.answer(replace(result, passed=True), step.binding.nonce)


def forgets(worker: Worker, message_id: int, step: SpanStep) -> bool:
    """All caches are gone, as after a restart."""
    worker.caches.forget(worker.channel.peer_id)
    return False


def loses(worker: Worker, message_id: int, step: SpanStep) -> bool:
    worker.channel.lose()
    worker.channel.restore()
    return True


def dies(worker: Worker, message_id: int, step: SpanStep) -> bool:
    worker.channel.lose()
    return True


def answers_twice(worker: Worker, message_id: int, step: SpanStep) -> bool:
    for _ in range(2):
        worker.channel.answer(worker.compute(step), message_id)
    return True


def refuses(code: ErrorCode) -> Fault:
    def refuse(worker: Worker, message_id: int, step: SpanStep) -> bool:
        worker.channel.answer(ErrorReply(code, "no"), message_id)
        return True

    return refuse


def lies(change: Callable[[SpanStep, SpanResult], SpanResult]) -> Fault:
    def lie(worker: Worker, message_id: int, step: SpanStep) -> bool:
        honest = worker.compute(step)
        worker.channel.answer(change(step, honest) if isinstance(honest, SpanResult) else honest, message_id)
        return True

    return lie


def other_rows(step: SpanStep, honest: SpanResult) -> SpanResult:
    """One bit of the last row, with a right digest: only who computes it again can tell."""
    rows = np.array(honest.rows)
    rows[-1].view(np.uint32)[0] ^= 1
    return replace(honest, digest=span_digest(step.binding, rows), rows=rows)


def not_finite(step: SpanStep, honest: SpanResult) -> SpanResult:
    rows = np.full_like(honest.rows, np.nan)
    return replace(honest, digest=span_digest(step.binding, rows), rows=rows)


def other_shape(step: SpanStep, honest: SpanResult) -> SpanResult:
    rows = np.ascontiguousarray(np.concatenate([honest.rows, honest.rows]))
    return replace(honest, digest=span_digest(step.binding, rows), rows=rows)


def of_another_step(step: SpanStep, honest: SpanResult) -> SpanResult:
    return replace(honest, digest=span_digest(replace(step.binding, nonce=1), honest.rows))


WAYS: dict[str, HandOn] = {one.__name__: one for one in (straight, behind, keeps, drops, swaps)}
HARMLESS: dict[str, Fault] = {
    "forgets": forgets,
    "loses": loses,
    "dies": dies,
    "answers twice": answers_twice,
    **{code.name: refuses(code) for code in (ErrorCode.EXHAUSTED, ErrorCode.UNAVAILABLE, ErrorCode.NO_CACHE)},
}
VISIBLE_LIES: dict[str, Fault] = {
    "not finite": lies(not_finite),
    "another shape": lies(other_shape),
    "another step": lies(of_another_step),
    "a wrong digest": lies(lambda step, honest: replace(honest, digest=bytes(32))),
}


class Home:
    """A client and its devices."""

    def __init__(
        self,
        model: StoredModel,
        cuts: Sequence[int],
        share: float = 0.0,
        computes: bool = True,
        begins_here: bool = False,
    ) -> None:
        self.model = model
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.workers = [Worker(self.context, model, index) for index in range(3)]
        for worker in self.workers:
            worker.others = {other.channel.peer_id: other for other in self.workers if other is not worker}
        self.told: list[str] = []
        self._computes = computes
        self.executor = HybridExecutor(KERNELS)
        borders = [0, *cuts, LAYERS]
        by = [None, *self.workers] if begins_here else self.workers
        stages = [self._stage(range(a, b), by[at % 3]) for at, (a, b) in enumerate(pairwise(borders))]
        self.kernels = select_kernels(1)
        self.witness: Worker | None = None
        """A connection to device 2 of its own, where what others compute is computed again; None: here."""
        recheck = Recheck(self._again, share) if share else None
        executor = self.executor
        self.chain = SpanChain(model.config, stages, self._replace, recheck, None, executor.timings, executor.counts)
        self.decoder = Decoder(model, [self.chain], Head(model, KERNELS, executor), here=())

    def _stage(self, layers: range, worker: Worker | None) -> Stage:
        if worker is not None:
            return Stage(layers, worker.device, 1)
        return Stage(layers, UnitLayers(self.model, KERNELS, self.executor, layers), 1)

    def _replace(self, stage: Stage, reason: str) -> Sequence[Stage]:
        """Another device, cut once more; this device if there is none."""
        self.told.append(reason)
        others = [one for one in self.workers if one.device is not stage.device and one.device.is_usable]
        if not others and not self._computes:
            raise UnitUnavailableError("nobody is left")
        middle = (stage.layers.start + stage.layers.stop) // 2
        halves = [range(stage.layers.start, middle), range(middle, stage.layers.stop)]
        by = [others[0] if others else None, others[-1] if len(others) > 1 else None]
        return [self._stage(layers, worker) for layers, worker in zip(halves, by, strict=True) if layers]

    def by_witness(self) -> Worker:
        """Device 2 computes again what the others compute."""
        self.witness = Worker(self.context, self.model, 2)
        self.cancelled = False
        """Whether the next rows that it computes are not wanted."""
        self._asked = Witness(self.witness.device, self.model.config, self._check)
        return self.witness

    def _check(self) -> None:
        cancelled, self.cancelled = self.cancelled, False
        if cancelled or (self.chain.recheck is not None and self.chain.recheck.ends):
            raise PassCancelledError

    def _again(self, layers: range, device: SpanDevice) -> Again:
        if self.witness is None:
            return Again(SpanLayers(self.model, self.kernels, layers))
        return Again(WitnessLayers(self._asked, layers), self.witness.device)

    def close(self) -> None:
        self.chain.close()
        for worker in [*self.workers, *([] if self.witness is None else [self.witness])]:
            if not worker.channel.closed:
                worker.channel.close()
        self.context.term()


def logits_alone(model: StoredModel, ids: Sequence[int]) -> Floats:
    decoder = Decoder.of_units(model, KERNELS, HybridExecutor(KERNELS))
    return decoder.forward(ids, decoder.new_cache(), all_logits=True)


def logits_of(decoder: Decoder, cache: KVCache, ids: Sequence[int], prompt: int) -> Floats:
    """A prompt, then token by token."""
    found = [decoder.forward(ids[:prompt], cache, all_logits=True)]
    found += [decoder.forward([token_id], cache)[None] for token_id in ids[prompt:]]
    return np.concatenate(found)
