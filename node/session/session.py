"""Answers prompts: chooses the mode, forms lanes and runs the model over them.

A request never falls to a weaker mode than it asked for: if peers are missing, it is computed here, and a note says
so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from node.errors import ConfigError
from node.execution.chunk import ChunkRecord
from node.execution.hybrid import HybridExecutor
from node.execution.interrupt import Interrupt
from node.execution.manager import ExecutionManager, OnPad
from node.execution.pads.own import OwnPads
from node.execution.pads.pool import PadPool
from node.execution.peer import SessionPeer
from node.kernels.speed import local_macs_per_s
from node.model.decoder import Decoder
from node.model.unit import Unit
from node.node import Node
from node.planning.cost import Cost
from node.planning.spans import PASS_ROWS
from node.privacy import Privacy
from node.process.allowance import available_memory
from node.serving.hosting import units_text
from node.session.config import SessionConfig
from node.session.opening import LaneOpener
from node.session.plan import LanePlan, PadMaker, SessionPlan
from node.session.planner import SessionPlanner
from node.session.receipt import Rechecked, SpanShare
from node.session.span_opener import SpanOpener
from node.spans import SpanChain
from node.store.stored import StoredModel
from node.transfer.borrowed import BorrowedUnits
from node.transfer.budget import MemoryBudget

__all__ = ["Privacy", "Session"]

TOLD_AGAIN_S = 5.0
"""Pause between two notes about units that no peer computes."""
SPANS_TOLD_S = 0.25
"""Watchers are told so often where layers are computed."""
PAD_BYTES = 4
"""Size of an element of a pad, or of its product."""

log = logging.getLogger(__name__)

LATER_MAKERS = {Privacy.SPLIT: PadMaker.PEER, Privacy.STRICT: PadMaker.OWN}
"""Modes that begin even if no peer is available yet, and use peers that join later; and who makes the pads then."""


class Session:
    """One model, one mode, fixed lanes; answers prompts one after the other. A context manager."""

    def __init__(
        self,
        node: Node,
        model: StoredModel,
        config: SessionConfig,
        on_change: Callable[[ChunkRecord], None] = lambda record: None,
        interrupt: Interrupt | None = None,
    ) -> None:
        self._node = node
        self._model = model
        self._config = config
        self._on_change = on_change
        self._interrupt = interrupt
        self._units = [model.unit(ref.layer, ref.kind) for ref in model.units]
        self._thin = not model.is_whole
        self._planner = SessionPlanner(node, model, config)
        if self._thin:
            node.hosted.learn(model.model_id_bytes, model.manifest)  # gives units for announced layers
        self._borrowed: BorrowedUnits | None = None
        self._own_pads: OwnPads | None = None
        self._pad_s = 0.0
        self._told_at: float | None = None
        self.on_note: Callable[[str], None] = lambda note: None
        """Called with a note for the user while a pass cannot go on."""
        self.note: str | None = None
        self._version = node.registry.version
        self._opener: LaneOpener | None = None
        self.chain: SpanChain | None = None
        """The layers' way through the user's own devices; None if they are computed unit by unit."""
        self._span_opener: SpanOpener | None = None
        self._peers: list[SessionPeer] = []
        self.spans: list[SpanShare] = []
        """Where the layers were computed a moment ago, for any thread; empty without a chain."""
        self._looked_at = 0.0
        self.plan = self.replan(config.prompt_tokens, config.new_tokens)
        for note in self.plan.notes:
            self._say(note)
        self._manager: ExecutionManager | None = None
        try:
            self._open()
            self.executor = HybridExecutor(node.kernels, self._manager, interrupt, self.plan.placement)
            self.executor.before_step = self._look_around
            self._decoder = self._new_decoder(interrupt)
        except BaseException:
            self._close()  # nobody else would close the channels
            raise

    def _new_decoder(self, interrupt: Interrupt | None) -> Decoder:
        if not self.plan.spans:
            return Decoder.of_units(self._model, self._node.kernels, self.executor)
        self._span_opener = opener = SpanOpener(
            self._node,
            self._model,
            self.executor,
            self._planner.offers,
            lambda sentence: self.on_note(sentence),
            self.plan,
            lambda: self._planner.covered(self.plan),
            self._config.recheck,
        )
        decoder = opener.open(interrupt)
        self.chain = opener.chain
        self.look_at_spans()
        assert self.chain is not None, "it is open"
        self.chain.before_pass = self._look_at_devices
        return decoder

    def _look_at_devices(self) -> None:
        """Called before each pass: devices that left or are banned get no new rows."""
        assert self.chain is not None, "only a chain has passes of its own"
        if time.monotonic() - self._looked_at > SPANS_TOLD_S:
            self.look_at_spans()
        for device in self.chain.devices:
            kept_out = self._node.access.refusal(device.peer_id) is not None
            device.peer.leaving = kept_out or self._node.registry.is_leaving(device.peer_id)

    @property
    def _lent(self) -> list[Unit]:
        """Units that peers compute if they can."""
        return [unit for unit in self._units if self.plan.placement.is_lent(unit.ref)]

    def watch_pads(self, on_pad: OnPad) -> None:
        """Call `on_pad` for pads that guards make for this session."""
        if self._manager is not None:
            self._manager.on_pad = on_pad

    @property
    def decoder(self) -> Decoder:
        """The model that computes in this session; only for the session's thread."""
        return self._decoder

    @property
    def peers(self) -> list[SessionPeer]:
        """The session's peers, each in one role; whoever joins comes at the end."""
        devices = [] if self.chain is None else [device.peer for device in self.chain.devices]
        now = devices + ([] if self._manager is None else self._manager.peers)
        if len(now) > len(self._peers):
            known = set(map(id, self._peers))
            self._peers += [peer for peer in now if id(peer) not in known]
        return self._peers

    @property
    def own_pads(self) -> OwnPads | None:
        """The pads that this device makes; None in other modes than strict."""
        return self._own_pads

    @property
    def pads_made(self) -> int:
        """Rows of pads that this device has made for the session."""
        return 0 if self._own_pads is None else self._own_pads.rows_made

    @property
    def pads_paired(self) -> int:
        """Rows of pads that a paired device was asked for."""
        makers = {} if self._opener is None else self._opener.paired_pads
        return sum(pads.rows_asked for pads in makers.values())

    @property
    def pad_s(self) -> float:
        """Seconds in which this device made pads before the clock started."""
        return self._pad_s

    @property
    def has_peers(self) -> bool:
        """Whether any peer may send something to this session."""
        return bool(self.peers)

    def attend(self, timeout_s: float) -> None:
        """While nothing runs, read what peers send, for at most this long or until its interrupt is triggered."""
        if self.chain is not None:
            self.chain.attend(timeout_s)
            timeout_s = 0.0
        if self._manager is not None:
            self._manager.attend(timeout_s)

    def rest(self) -> None:
        """No request runs any more: cancel what peers still compute."""
        if self.chain is not None:
            self.chain.rest()
        if self._manager is not None:
            self._manager.cancel_all()

    def look_at_spans(self) -> list[SpanShare]:
        """Where the layers are computed now; only for the session's thread."""
        self.spans = [] if self.chain is None else [SpanShare.of(stage) for stage in self.chain.stages]
        self._looked_at = time.monotonic()
        return self.spans

    @property
    def least_rows(self) -> int:
        """Rows of a prompt that a pass should have if there are so many and nobody else waits."""
        devices = 0 if self.chain is None else sum(stage.device is not None for stage in self.chain.stages)
        lends = self._manager is not None and any(lane.takes_rows for lane in self._manager.lanes)
        return PASS_ROWS if lends or devices > 1 else 1

    @property
    def rechecked(self) -> Rechecked | None:
        """How much of that was computed again."""
        if self.chain is None or self.chain.recheck is None:
            return None
        return Rechecked.of(self.chain.recheck)

    @property
    def mode(self) -> Privacy:
        """The mode in which the session really runs."""
        return self.plan.mode

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._close()

    def _close(self) -> None:
        for peer in self.peers:
            self._node.tally.left(peer)
        if self._span_opener is not None:
            self._span_opener.close()
        if self._manager is not None:
            self._manager.close()
        if self._borrowed is not None:
            self._borrowed.close()

    @property
    def weights_here_bytes(self) -> int:
        """Size of the units whose weights this device has, including units that are borrowed now."""
        return self._model.held_bytes + (0 if self._borrowed is None else self._borrowed.num_bytes)

    @property
    def checks_bytes(self) -> int:
        """Size of the checks for results."""
        return self._node.checks_of(self._model).num_bytes

    def replan(self, prompt_tokens: int, new_tokens: int) -> SessionPlan:
        """The plan that would be formed now, for a request of this size; only while nothing runs in the session."""
        return self._planner.replan(prompt_tokens, new_tokens)

    def predict(self, plan: SessionPlan, prompt_tokens: int) -> Cost:
        """The predicted cost of a request with this plan over the peers of this session."""
        return self._planner.predict(plan, prompt_tokens)

    def seconds_here(self, model: StoredModel) -> float:
        """Predicted seconds of a token of another model that is computed by this device alone."""
        return self._node.planner.predict(model, Privacy.LOCAL, (), 1).token_s

    def decoder_here(self, model: StoredModel) -> Decoder:
        """Another model, which this device computes alone; for the session's thread, ended by its interrupt."""
        kernels = self._node.kernels
        return Decoder.of_units(model, kernels, HybridExecutor(kernels, None, self._interrupt))

    def learn(self, predicted: Cost, ttft_s: float, token_s: float) -> None:
        """Learn from the real times of a request that ran alone in the session; 0 means not measured."""
        self._planner.learn(self.plan, predicted, ttft_s, token_s)

    # --- how a session is formed

    def _open(self) -> None:
        if self.plan.spans and not self.plan.lanes:
            return
        waits = self.plan.lanes or self.plan.mode is not Privacy.LOCAL
        maker = self.plan.pad_maker if waits else LATER_MAKERS.get(self._config.privacy)
        if maker is None:
            return
        self._manager = manager = self._new_manager()
        ahead = self._pads_ahead() if maker is PadMaker.OWN else None
        self._opener = LaneOpener(self._node, manager, maker, self._model.model_id_bytes, self._thin, ahead)
        if self._thin:
            self._borrow_for(manager)
        if self.plan.lanes:
            self._open_lanes(self._opener)
        self._own_pads = self._opener.own_pads
        if self._own_pads is not None and self.plan.lanes:
            self._check_room(self._config.pad_rows)
            self._own_pads.fill(self._lent, self._config.pad_rows)
            self._pad_s, self._own_pads.seconds = self._own_pads.seconds, 0.0

    def _pads_ahead(self) -> PadPool | None:
        """Pads that were made while this node was idle, and are from now on."""
        if self._thin or not self._config.pads_ahead:
            return None
        of_layers = [unit for unit in self._units if unit.ref.layer is not None]
        return self._node.pads.keep(self._model.model_id_bytes, lambda: of_layers)

    def _borrow_for(self, manager: ExecutionManager) -> None:
        """Set what happens to chunks that no lane computes, if the weights are not here."""
        total_bytes = self._node.config.memory_bytes or available_memory() // 2
        total_bytes -= self._node.hosted.bytes_of_parts(except_for=self._model.model_id_bytes)
        lent = frozenset(ref.kind for ref in self._model.units if not self._model.holds(ref))
        served = self._node.hosted.held(self._model.model_id_bytes)
        limit_bytes = MemoryBudget(total_bytes, lent).to_borrow(self._model.manifest, served)
        self._borrowed = self._node.transfers.borrower(self._model, limit_bytes)
        if self._borrowed is not None:
            manager.lender = self._borrowed
        manager.look_around = self._look_around
        manager.on_trouble = self._trouble

    def _trouble(self, sentence: str) -> None:
        """A pass cannot go on: tell the user at once, and again from time to time."""
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= TOLD_AGAIN_S:
            self._told_at = now
            self.on_note(sentence)

    def _check_room(self, pad_rows: int) -> None:
        """Raises ConfigError if the pads made before the clock starts would not fit into half of the free memory."""
        row_bytes = sum(PAD_BYTES * (unit.ref.num_inputs + unit.ref.num_outputs) for unit in self._lent)
        room = available_memory() // 2
        if pad_rows * row_bytes > room:
            raise ConfigError(
                f"--pad-rows {pad_rows} needs {pad_rows * row_bytes >> 20} MiB, but half of the free memory is "
                f"{room >> 20} MiB: give at most {room // row_bytes}"
            )

    def _open_lanes(self, opener: LaneOpener) -> None:
        for lane in self.plan.lanes:
            self._open_lane(opener, lane)
        for peer_id in opener.wait_connected():
            self._say(f"the data plane of {peer_id} cannot be reached: its lane is not used")
        covered = self._planner.covered(self.plan)
        left = [unit.ref for unit in self._lent if unit.ref.layer not in self.plan.spanned]
        if lacking := units_text([ref for ref in left if ref.sha256 not in covered]):
            self._say(f"no lane holds {lacking}: computed here{' with borrowed weights' if self._thin else ''}")

    def _open_lane(self, opener: LaneOpener, lane: LanePlan) -> None:
        opener.open_lane(lane, self._planner.found.holders, self._planner.units_of(lane))

    def _look_around(self) -> None:
        """Called before each pass: peers that left or are banned get no new rows, and peers that joined are used."""
        registry = self._node.registry
        if self._opener is not None:
            self._opener.begin_pass()
        if registry.version == self._version or self._manager is None or self._opener is None:
            return
        self._version = registry.version
        for peer in self._manager.peers:
            kept_out = self._node.access.refusal(peer.peer_id) is not None
            peer.leaving = kept_out or registry.is_leaving(peer.peer_id)
        asked = self._config.privacy if self.mode is Privacy.LOCAL else self.plan.outside
        plan = self._planner.plan_anew(asked)
        for lane in plan.lanes:
            if self._opener.may_open(lane):
                log.info("peers %s join the session as a lane", ", ".join(lane.peers))
                self._open_lane(self._opener, lane)
        if self.mode is Privacy.LOCAL and plan.lanes:
            self.plan = plan
            self._draw_checks()
            self.executor.placement = plan.placement
            self._say(f"peers joined during the answer: {plan.mode.value} from there on")

    def _new_manager(self) -> ExecutionManager:
        kernels = self._node.kernels
        self._draw_checks()
        execution = self._config.execution
        if self._thin:  # a slow peer is better than none
            execution = replace(execution, credit_s=execution.progress_limit_s)
        return ExecutionManager(
            kernels,
            self._model.model_id_bytes,
            self._node.checks_of(self._model),
            local_macs_per_s(kernels),
            execution,
            self._recheck,
            self._on_change,
            self._interrupt,
        )

    def _draw_checks(self) -> None:
        """Make the checks for results before anything is lent."""
        checks = self._node.checks_of(self._model)
        for unit in self._lent:
            checks.of(unit)

    def _say(self, note: str) -> None:
        log.info("%s", note)
        self.note = note if self.note is None else f"{self.note}; {note}"

    def _recheck(self, unit: Unit) -> None:
        """Check, before a peer is banned, that our own weights or the check have not changed."""
        self._model.confirm(unit.ref)
