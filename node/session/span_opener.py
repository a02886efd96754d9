"""Opens the stages of a session whose layers are computed by devices of the same owner, and finds others for them."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial

from node.errors import UnitUnavailableError
from node.execution.hybrid import HybridExecutor
from node.execution.interrupt import Interrupt, PassCancelledError
from node.execution.peer import SessionPeer
from node.kernels import select_kernels
from node.kernels.interface import Kernels
from node.model.decoder import Decoder
from node.model.head import Head
from node.model.layers import UnitLayers
from node.model.span import SpanLayers
from node.node import Node
from node.planning.spans import SpanOffer, SpanPlan, cut_spans
from node.serving.hosting import layers_text
from node.session.opening import CONNECT_TIMEOUT_S, LIE_BAN_S
from node.session.plan import SessionPlan
from node.spans import SpanChain
from node.spans.device import SpanDevice
from node.spans.recheck import Again, Recheck
from node.spans.stage import Stage
from node.spans.witness import Witness, WitnessLayers
from node.store.stored import StoredModel
from node.transport.channel import open_channel
from node.trust.paired import NotPairedError
from protocol.identity import PeerId
from protocol.linear.messages import Role

log = logging.getLogger(__name__)

WAIT_S = 30.0
"""How long an answer waits for a device if nobody is there that computes some layers."""
TURN_S = 0.2
AGAIN_S = 5.0
"""A device that could not go on is asked again after this time; the user is told so often what is waited for."""

Offers = Callable[[], Sequence[SpanOffer]]
"""Devices that could compute layers now."""


class SpanOpener:
    """Opens devices and stages for one session; only its thread uses it.

    Args:
        executor: computes the units of layers that stay here.
        offers: looks for devices.
        tell: tells the user something at once.
        plan: its spans; its lanes compute what these leave out, where the weights are not here.
        covered: the units that these lanes compute now.
        share: the share of results that is computed again.
    """

    def __init__(
        self,
        node: Node,
        model: StoredModel,
        executor: HybridExecutor,
        offers: Offers,
        tell: Callable[[str], None],
        plan: SessionPlan,
        covered: Callable[[], frozenset[bytes]],
        share: float,
    ) -> None:
        self._node, self._model, self._executor = node, model, executor
        self._offers, self._tell, self._share = offers, tell, share
        self._plan, self._covered = plan, covered
        self._devices: dict[PeerId, SpanDevice] = {}
        self._failed: dict[PeerId, float] = {}
        """When devices could not go on; they are asked again some time later, if there is nobody else."""
        self._waits_since: float | None = None
        """Since when no pass has come through because a device is missing."""
        self._interrupt: Interrupt | None = None
        self._recheck: Recheck | None = None
        self._kernels_of_recheck: Kernels | None = None
        self._again_here: dict[range, SpanLayers] = {}
        self._witnesses: dict[PeerId, Witness] = {}
        """By device: the connection over which it computes again what others computed."""
        self.chain: SpanChain | None = None

    def open(self, interrupt: Interrupt | None) -> Decoder:
        """The decoder whose layers go through the spans of the plan; what they leave out is computed here, or lent.

        Raises:
            NotPairedError: a device may not read prompts.
        """
        self._interrupt = interrupt
        stages: list[Stage] = []
        try:
            for layers, peer_id in _with_gaps(self._plan.spans, range(self._model.config.num_layers)):
                stages.append(self._here(layers) if peer_id is None else self._away(layers, peer_id))
        except BaseException:
            self.close()
            raise
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        for device in self._devices.values():
            device.peer.channel.wait_connected(deadline - time.monotonic())
        recheck = None
        if self._share > 0:
            recheck = self._recheck = Recheck(self._again, self._share)
        executor = self._executor
        self.chain = SpanChain(
            self._model.config,
            stages,
            self._replace,
            recheck,
            interrupt,
            executor.timings,
            executor.counts,
            self._confirm,
        )
        self.chain.after_pass = self._passed
        head = Head(self._model, self._node.kernels, executor)
        return Decoder(self._model, [self.chain], head, here=())

    def close(self) -> None:
        """End all connections."""
        if self.chain is not None:
            self.chain.close()
        for device in (*self._devices.values(), *(witness.device for witness in self._witnesses.values())):
            device.close()
            self._node.tally.left(device.peer)

    def _passed(self) -> None:
        self._waits_since = None

    def _confirm(self, layers: range) -> None:
        """Before a device is blamed: raises CorruptModelError if our own weights of its layers have changed."""
        for ref in self._model.units:
            if ref.layer in layers:
                self._model.confirm(ref)

    def _is_here(self, layers: range) -> bool:
        return all(self._model.holds(ref) for ref in self._model.units if ref.layer in layers)

    def _is_lent(self, layers: range) -> bool:
        """Whether lanes compute all that is not here of these layers."""
        needed = [ref for ref in self._model.units if ref.layer in layers and not self._model.holds(ref)]
        return bool(self._plan.lanes) and self._covered().issuperset(ref.sha256 for ref in needed)

    def _macs(self, layers: range) -> int:
        return sum(ref.num_inputs * ref.num_outputs for ref in self._model.units if ref.layer in layers)

    def _here(self, layers: range) -> Stage:
        here = UnitLayers(self._model, self._node.kernels, self._executor, layers)
        mode = self._plan.lanes_mode
        return Stage(layers, here, self._macs(layers), "" if mode is None else mode.value)

    def _away(self, layers: range, peer_id: PeerId) -> Stage:
        if peer_id not in self._devices:
            self._devices[peer_id] = self._joined(peer_id)
        return Stage(layers, self._devices[peer_id], self._macs(layers))

    def _joined(self, peer_id: PeerId) -> SpanDevice:
        """A connection to a device. This is the last and decisive check of the user's consent."""
        node = self._node
        if peer_id not in node.trust.devices.readers:
            raise NotPairedError(f"{peer_id} may not read your prompts: nothing was sent to it")
        peer = node.registry.peer(peer_id)
        if peer is None:
            raise NotPairedError(f"{peer_id} has left")
        channel = open_channel(node.secure, node.data, peer)
        measures, model_id = node.registry.measures.of(peer_id), self._model.model_id_bytes
        joined = SessionPeer(peer_id, Role.PLAIN, channel, measures, model_id, name=node.name_of(peer_id))
        joined.on_ban = partial(node.ban, peer_id, "a result of it failed verification", LIE_BAN_S)
        node.tally.joined(joined)
        size = self._model.config.hidden_size
        return SpanDevice(joined, model_id, lambda: peer_id in node.trust.devices.readers, size)

    # --- who computes again

    def _again(self, layers: range, device: SpanDevice) -> Again | None:
        """Who computes layers of a device again: this one, or else another."""
        if not self._is_here(layers):
            witness = self._witness(layers, device.peer_id)
            return None if witness is None else Again(WitnessLayers(witness, layers), witness.device)
        if layers not in self._again_here:
            self._kernels_of_recheck = self._kernels_of_recheck or select_kernels(1)
            self._again_here[layers] = SpanLayers(self._model, self._kernels_of_recheck, layers)
        return Again(self._again_here[layers])

    def _witness(self, layers: range, of: PeerId) -> Witness | None:
        """Any device that holds these layers and can be dialled; none that attached itself, because what its
        connection carries belongs to the chain. The comparing thread waits for the connection, and alone reads it."""
        offers = [offer.peer_id for offer in self._offers() if offer.layers.issuperset(layers)]
        for peer_id in secrets.SystemRandom().sample(offers, len(offers)):
            peer = self._node.registry.peer(peer_id)
            if peer_id == of or peer is None or not peer.hello.data_port or self._is_left(peer_id):
                continue
            if peer_id not in self._witnesses:
                try:
                    device = self._joined(peer_id)
                except NotPairedError:
                    continue
                self._witnesses[peer_id] = Witness(device, self._model.config, self._check_comparing)
            return self._witnesses[peer_id]
        return None

    def _is_left(self, peer_id: PeerId) -> bool:
        """Whether a device is not to be asked for results of others."""
        device, witness = self._devices.get(peer_id), self._witnesses.get(peer_id)
        failed_at = self._failed.get(peer_id, -math.inf)
        return (
            (device is not None and device.peer.gone)
            or (witness is not None and (witness.fails or witness.device.peer.gone))
            or time.monotonic() - failed_at < AGAIN_S
        )

    def _check_comparing(self) -> None:
        """Raises PassCancelledError where rows need not be computed again any more."""
        if self._recheck is not None and self._recheck.ends:
            raise PassCancelledError
        if self._share >= 1 and self._interrupt is not None:
            self._interrupt.check()

    # --- when a device cannot go on

    def _replace(self, stage: Stage, reason: str) -> Sequence[Stage]:
        """Other stages for the layers of one whose device cannot go on.

        Raises:
            UnitUnavailableError: nobody computes them, and their weights are not here.
            PassCancelledError: they are not wanted any more.
        """
        assert stage.device is not None, "only a device is replaced"
        called, layers = stage.device.peer.called, stage.layers
        self._failed[stage.device.peer_id] = time.monotonic()
        told_at = -AGAIN_S
        while True:
            if self._interrupt is not None:
                self._interrupt.check()
            stages, now = self._others(layers), time.monotonic()
            if stages is None:
                self._waits_since = self._waits_since or now
                if now - self._waits_since > WAIT_S:
                    if not self._plan.lanes:
                        raise UnitUnavailableError(
                            f"no device that is there computes {layers_text(set(layers))}, and the weights are "
                            f"not here ({called}: {reason}): start a device that holds the model and may read your "
                            "prompts"
                        )
                    stages = [self._here(layers)]  # what no lane computes either is computed with borrowed weights
            if stages is not None:
                by = ", ".join(f"{layers_text(set(each.layers))} {_by_whom(each)}" for each in stages)
                self._tell(f"device {called}: {reason}; from here on: {by}")
                return stages
            if now - told_at >= AGAIN_S:
                told_at = now
                self._tell(
                    f"device {called}: {reason}; waiting for a device that computes {layers_text(set(layers))}"
                )
            time.sleep(TURN_S)
            self._failed = {one: at for one, at in self._failed.items() if now - at < AGAIN_S}

    def _others(self, layers: range) -> list[Stage] | None:
        """Stages that cover the layers; None if nobody can compute some of them."""
        offers = [offer for offer in self._offers() if offer.peer_id not in self._failed]
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        reached = [
            (offer, self._reached(offer.peer_id)) for offer in offers
        ]  # all are dialled before one is waited for
        offers = [offer for offer, device in reached if device is not None and _comes_up(device, deadline)]
        fastest = max(offers, key=lambda offer: offer.figures.row_macs_per_s, default=None)
        if fastest is not None and fastest.layers.issuperset(layers):
            return [self._away(layers, fastest.peer_id)]
        stages: list[Stage] = []
        for part, peer_id in _with_gaps(cut_spans(layers, offers), layers):
            if peer_id is not None:
                stages.append(self._away(part, peer_id))
            elif self._is_lent(part) or self._is_here(part):
                stages.append(self._here(part))
            else:
                return None
        return stages

    def _reached(self, peer_id: PeerId) -> SpanDevice | None:
        """A device that may take part, dialled; None for one that may not, or was left for this session."""
        try:
            if peer_id not in self._devices:
                self._devices[peer_id] = self._joined(peer_id)
        except NotPairedError:
            return None
        device, witness = self._devices[peer_id], self._witnesses.get(peer_id)
        return None if device.peer.gone or (witness is not None and witness.device.peer.gone) else device


def _comes_up(device: SpanDevice, deadline: float) -> bool:
    """Whether its connection stands, or comes to stand in time."""
    device.peer.channel.notice_losses()
    return device.peer.channel.wait_connected(max(0.0, deadline - time.monotonic()))


def _by_whom(stage: Stage) -> str:
    """Who computes a stage, for people."""
    if stage.device is not None:
        return stage.device.peer.called
    return f"in {stage.lent}" if stage.lent else "here"


def _with_gaps(spans: Sequence[SpanPlan], layers: range) -> list[tuple[range, PeerId | None]]:
    """The spans, and between them the layers that they leave out, with nobody."""
    parts: list[tuple[range, PeerId | None]] = []
    start = layers.start
    for span in spans:
        if span.layers.start > start:
            parts.append((range(start, span.layers.start), None))
        parts.append((span.layers, span.peer_id))
        start = span.layers.stop
    if start < layers.stop:
        parts.append((range(start, layers.stop), None))
    return parts
