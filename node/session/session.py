"""A prompt answered: the mode is settled, lanes are formed, tokens stream, a true receipt ends it.

A request never falls to a weaker mode than it asked for: where peers are missing it is computed here, and says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from node.errors import ConfigError
from node.execution.chunk import ChunkRecord
from node.execution.config import ExecutionConfig
from node.execution.hybrid import HybridExecutor
from node.execution.interrupt import Interrupt
from node.execution.lane import DEFAULT_MAX_LANES
from node.execution.manager import ExecutionManager, OnPad
from node.execution.pads.own import OwnPads
from node.execution.peer import SessionPeer
from node.kernels.speed import local_macs_per_s
from node.model.decoder import Decoder
from node.model.unit import Unit
from node.node import Node
from node.planning.cost import Cost
from node.planning.figures import LaneFigures
from node.planning.placement import Lend, Placement, allowed_placements
from node.privacy import Privacy
from node.process.allowance import available_memory
from node.serving.hosting import units_text
from node.session.candidates import CandidateFinder
from node.session.formation import Candidates, LanePlan, PadMaker, SessionPlan, form
from node.session.opening import LaneOpener
from node.store.stored import StoredModel
from node.transfer.borrowed import BorrowedUnits
from node.transfer.budget import MemoryBudget
from protocol.identity import PeerId

__all__ = ["Privacy", "Session", "SessionConfig"]

TOLD_AGAIN_S = 4.0
"""Between two sentences about units that no peer computes."""
PAD_BYTES = 4
"""An element of a pad, or of its product."""

log = logging.getLogger(__name__)

LATER_MAKERS = {Privacy.SPLIT: PadMaker.PEER, Privacy.STRICT: PadMaker.OWN}
"""Modes that begin although nobody is there yet, and use who joins in the middle: who makes the pads then."""


class SessionConfig(Struct, frozen=True):
    """What one session is asked for."""

    privacy: Privacy = Privacy.AUTO
    max_lanes: int = DEFAULT_MAX_LANES
    named: tuple[PeerId, ...] | None = None
    """Peers in the order in which the user named them; None for those whose addresses the node was started with."""
    by_guards: bool = False
    """Nobody was named: this node chooses guards among the members of its swarm, and keeps them."""
    inbound_peers: bool = False
    """Whether peers that came in by themselves may be used beside those that the user named: in `split` mode two of
    them could be one adversary in both roles of a lane."""
    pad_rows: int = 0
    """`strict`: pads of every unit to make before the clock starts."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    lend: Lend = Lend.LAYERS
    """What is lent where something is."""
    prompt_tokens: int = 64
    new_tokens: int = 128
    """What the session is expected to be used for, as far as it is known: `auto` weighs this."""


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
        self._placements = self._allowed_placements()
        if self._thin:
            node.hosted.learn(model.model_id_bytes, model.manifest)  # peers announce layers: these are their units
        self._borrowed: BorrowedUnits | None = None
        self._own_pads: OwnPads | None = None
        self._pad_s = 0.0
        self._told_at: float | None = None
        self.on_note: Callable[[str], None] = lambda note: None
        """Told what a person should know while a pass stands still."""
        self.note: str | None = None
        self._version = node.registry.version
        self._finder = CandidateFinder(node, model, self._named(), config.inbound_peers, config.max_lanes)
        self._found = Candidates()
        self._opener: LaneOpener | None = None
        self.plan = self.replan(config.prompt_tokens, config.new_tokens)
        for note in self.plan.notes:
            self._say(note)
        self._manager: ExecutionManager | None = None
        try:
            self._open()
            self.executor = HybridExecutor(node.kernels, self._manager, interrupt, self.plan.placement)
            self.executor.before_step = self._look_around
            self._decoder = Decoder.of_units(model, node.kernels, self.executor)
        except BaseException:
            self._close()  # nobody else knows of the channels
            raise

    @property
    def _lent(self) -> list[Unit]:
        """Units that peers compute as far as they can."""
        return [unit for unit in self._units if self.plan.placement.is_lent(unit.ref)]

    def watch_pads(self, on_pad: OnPad) -> None:
        """Tell of pads that guards make for it."""
        if self._manager is not None:
            self._manager.on_pad = on_pad

    @property
    def decoder(self) -> Decoder:
        """The model, computing in this session; for the session's thread alone."""
        return self._decoder

    @property
    def peers(self) -> list[SessionPeer]:
        """Its peers, each in one role."""
        return [] if self._manager is None else self._manager.peers

    @property
    def pads_made(self) -> int:
        """Rows of pads that this device has made for it."""
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
        """Whether somebody may send something to it."""
        return bool(self.peers)

    def attend(self, timeout_s: float) -> None:
        """While nothing runs in it: read what peers send, at most so long (or until its interrupt is nudged)."""
        if self._manager is not None:
            self._manager.attend(timeout_s)

    def rest(self) -> None:
        """No request runs any more: cancel what peers still work on."""
        if self._manager is not None:
            self._manager.cancel_all()

    @property
    def mode(self) -> Privacy:
        """The mode in which it really runs."""
        return self.plan.mode

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._close()

    def _close(self) -> None:
        for peer in self.peers:
            self._node.tally.left(peer)
        if self._manager is not None:
            self._manager.close()
        if self._borrowed is not None:
            self._borrowed.close()

    @property
    def weights_here_bytes(self) -> int:
        """Size of the units whose weights this device has for it, those that are borrowed now among them."""
        return self._model.held_bytes + (0 if self._borrowed is None else self._borrowed.num_bytes)

    @property
    def checks_bytes(self) -> int:
        """Size of what results are checked with."""
        return self._node.checks_of(self._model).num_bytes

    # --- how a session is formed

    def _named(self) -> tuple[PeerId, ...] | None:
        config = self._config
        if config.by_guards:
            return None
        bootstrap = self._node.config.bootstrap
        return config.named or tuple(address.peer_id for address in bootstrap if address.peer_id)

    def replan(self, prompt_tokens: int, new_tokens: int) -> SessionPlan:
        """How it would be formed now, for a request of this size; while nothing runs in it."""
        if self._config.privacy is not Privacy.LOCAL:
            self._found = self._finder.find(self._config.privacy in (Privacy.AUTO, Privacy.SPLIT))
        return self._plan(self._config.privacy, prompt_tokens, new_tokens)

    def _plan(self, asked: Privacy, prompt_tokens: int, new_tokens: int) -> SessionPlan:
        return form(
            asked,
            self._found,
            lambda plan: self.predict(plan, prompt_tokens),
            new_tokens,
            self._placements,
        )

    def _allowed_placements(self) -> tuple[Placement, ...]:
        """What may be lent, by the user's word and by what is held here."""
        lend, model = self._config.lend, self._model
        if self._thin and self._config.privacy is Privacy.LOCAL:
            raise ConfigError(
                f"{model.name} lies here without its weights, so that this device cannot compute it alone: "
                f"choose another --privacy, or fetch all of it with `kekahyde-node pull {model.model_id}`"
            )
        missing = frozenset(ref.kind for ref in model.units if not model.holds(ref))
        allowed = [placement for placement in allowed_placements(lend) if missing <= placement.lent]
        if not allowed:
            raise ConfigError(
                f"--lend {lend.value} leaves units here whose weights are not ({', '.join(sorted(missing))}): "
                "use --lend all, or pull the model again with --thin and this --lend"
            )
        return tuple(allowed)

    def predict(self, plan: SessionPlan, prompt_tokens: int) -> Cost:
        """What a request in a plan over the peers of this session costs, as far as is known now."""
        own = [self._figures_of(lane) for lane in plan.lanes if not lane.stands_in]
        covered = frozenset[bytes]().union(*(figures.units or () for figures in own))
        stand_ins = [self._figures_of(lane) for lane in plan.lanes if lane.stands_in]
        lanes = own + [replace(figures, units=(figures.units or covered) - covered) for figures in stand_ins]
        return self._node.planner.predict(
            self._model, plan.mode, lanes, prompt_tokens, self._config.pad_rows, plan.placement
        )

    def learn(self, predicted: Cost, ttft_s: float, token_s: float) -> None:
        """How a request that was alone in it really went; 0 for what was not seen."""
        self._node.planner.learn(self._model, self.mode, self.plan.placement, predicted, ttft_s, token_s)

    def _figures_of(self, lane: LanePlan) -> LaneFigures:
        of, model_id = self._node.planner.measures.of, self._model.model_id_bytes
        guard = None if lane.pads is None else of(lane.pads).figures_for(model_id)
        return LaneFigures(of(lane.share).figures_for(model_id), guard, self._finder.units_of(lane, self._found))

    def _open(self) -> None:
        waits = self.plan.lanes or self.plan.mode is not Privacy.LOCAL
        maker = self.plan.pad_maker if waits else LATER_MAKERS.get(self._config.privacy)
        if maker is None:
            return
        self._manager = manager = self._new_manager()
        self._opener = LaneOpener(self._node, manager, maker, self._model.model_id_bytes, self._thin)
        if self._thin:
            self._borrow_for(manager)
        if self.plan.lanes:
            self._open_lanes(self._opener)
        self._own_pads = self._opener.own_pads
        if self._own_pads is not None and self.plan.lanes:
            self._check_room(self._config.pad_rows)
            self._own_pads.fill(self._lent, self._config.pad_rows)
            self._pad_s, self._own_pads.seconds = self._own_pads.seconds, 0.0

    def _borrow_for(self, manager: ExecutionManager) -> None:
        """What becomes of chunks that no lane computes, where the weights are not here."""
        total_bytes = self._node.config.memory_bytes or available_memory() // 2
        lent = frozenset(ref.kind for ref in self._model.units if not self._model.holds(ref))
        served = self._node.hosted.held(self._model.model_id_bytes)
        limit_bytes = MemoryBudget(total_bytes, lent).to_borrow(self._model.manifest, served)
        self._borrowed = self._node.transfers.borrower(self._model, limit_bytes)
        if self._borrowed is not None:
            manager.lender = self._borrowed
        manager.look_around = self._look_around
        manager.on_trouble = self._trouble

    def _trouble(self, sentence: str) -> None:
        """A pass stands still: the first time that is told, and then now and then."""
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= TOLD_AGAIN_S:
            self._told_at = now
            self.on_note(sentence)

    def _check_room(self, pad_rows: int) -> None:
        """Raises ConfigError where pads made before the clock starts would not fit into half of the free memory."""
        row_bytes = sum(PAD_BYTES * (unit.ref.num_inputs + unit.ref.num_outputs) for unit in self._lent)
        room = available_memory() // 2
        if pad_rows * row_bytes > room:
            raise ConfigError(
                f"--pad-rows {pad_rows} needs {pad_rows * row_bytes >> 20} MiB, half of what is free here is "
                f"{room >> 20} MiB: give {room // row_bytes} at most"
            )

    def _open_lanes(self, opener: LaneOpener) -> None:
        for lane in self.plan.lanes:
            self._open_lane(lane)
        for peer_id in opener.wait_connected():
            self._say(f"the data plane of {peer_id} cannot be reached: its lane stays unused")
        covered = frozenset[bytes]().union(*(self._finder.units_of(lane, self._found) for lane in self.plan.lanes))
        if lacking := units_text([unit.ref for unit in self._lent if unit.ref.sha256 not in covered]):
            self._say(f"no lane holds {lacking}: computed here{' with borrowed weights' if self._thin else ''}")

    def _open_lane(self, lane: LanePlan) -> None:
        assert self._opener is not None, "a session with lanes has somebody to open them"
        self._opener.open_lane(lane, self._found.holders, self._finder.units_of(lane, self._found))

    def _look_around(self) -> None:
        """Before each pass: who said goodbye or is kept out gets no new rows, who joined is used from now on."""
        registry = self._node.registry
        if registry.version == self._version or self._manager is None or self._opener is None:
            return
        self._version = registry.version
        for peer in self._manager.peers:
            kept_out = self._node.access.refusal(peer.peer_id) is not None
            peer.leaving = kept_out or registry.is_leaving(peer.peer_id)
        asked = self._config.privacy if self.mode is Privacy.LOCAL else self.mode
        self._found = self._finder.find(asked is Privacy.SPLIT)
        plan = self._plan(asked, self._config.prompt_tokens, self._config.new_tokens)
        for lane in plan.lanes:
            if self._opener.may_open(lane):
                log.info("peers %s join the session as a lane", ", ".join(lane.peers))
                self._open_lane(lane)
        if self.mode is Privacy.LOCAL and plan.lanes:
            self.plan = plan
            self._draw_checks()
            self.executor.placement = plan.placement
            self._say(f"{plan.mode.value} from the middle on: peers joined")

    def _new_manager(self) -> ExecutionManager:
        kernels = self._node.kernels
        self._draw_checks()
        execution = self._config.execution
        if self._thin:  # whoever is slow is better than nobody
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
        """Before anything is lent: what its results are checked with."""
        checks = self._node.checks_of(self._model)
        for unit in self._lent:
            checks.of(unit)

    def _say(self, note: str) -> None:
        log.info("%s", note)
        self.note = note if self.note is None else f"{self.note}; {note}"

    def _recheck(self, unit: Unit) -> None:
        """Before a peer is banned: are our own weights, or the check, still what they were?"""
        self._model.confirm(unit.ref)
