"""Forms the plans of one session, and predicts what they cost."""

from __future__ import annotations

from msgspec.structs import replace

from node.errors import ConfigError
from node.node import Node
from node.planning.cost import Cost
from node.planning.figures import LaneFigures
from node.planning.placement import Placement, allowed_placements
from node.planning.spans import SpanOffer
from node.privacy import Privacy
from node.session.candidates import CandidateFinder
from node.session.config import SessionConfig
from node.session.formation import form
from node.session.plan import Candidates, LanePlan, SessionPlan
from node.store.stored import StoredModel
from protocol.identity import PeerId

SOME_TOKENS = 64
"""The beginning of an answer, for which pads made ahead are to be enough; how long it will be is not known."""


class SessionPlanner:
    """Only the session's thread uses it.

    Raises:
        ConfigError: what the user wants to lend cannot be, with the weights that are here.
    """

    def __init__(self, node: Node, model: StoredModel, config: SessionConfig) -> None:
        self._node = node
        self._model = model
        self._config = config
        self._thin = not model.is_whole
        self._placements = self._allowed_placements()
        self._finder = CandidateFinder(node, model, self._named(), config.inbound_peers, config.max_lanes)
        self.found = Candidates()
        """The peers that were found last."""

    def offers(self) -> tuple[SpanOffer, ...]:
        """Devices of the user that could compute layers now, and may for what was asked."""
        offers, for_auto = self._finder.offers(), self._node.trust.devices.readers_for_auto
        if self._config.privacy is not Privacy.AUTO:
            return offers
        return tuple(offer for offer in offers if offer.peer_id in for_auto)

    def units_of(self, lane: LanePlan) -> frozenset[bytes]:
        """Units that all peers of a lane hold."""
        return self._finder.units_of(lane, self.found)

    def replan(self, prompt_tokens: int, new_tokens: int) -> SessionPlan:
        """The plan that would be formed now, for a request of this size; only while nothing runs in the session."""
        if self._config.privacy is not Privacy.LOCAL:
            self.found = self._finder.find(self._config.privacy in (Privacy.AUTO, Privacy.SPLIT))
        return self._plan(self._config.privacy, prompt_tokens, new_tokens)

    def plan_anew(self, asked: Privacy) -> SessionPlan:
        """The plan with the peers that are there now, while an answer is computed."""
        found = self._finder.find(asked is Privacy.SPLIT)
        self.found = found.by_auto if self._config.privacy is Privacy.AUTO else found
        return self._plan(asked, self._config.prompt_tokens, self._config.new_tokens)

    def covered(self, plan: SessionPlan) -> frozenset[bytes]:
        """Units that some lane of a plan computes."""
        return frozenset[bytes]().union(*(self.units_of(lane) for lane in plan.lanes))

    def predict(self, plan: SessionPlan, prompt_tokens: int) -> Cost:
        """The predicted cost of a request with this plan."""
        if plan.spans:
            measures = self._node.planner.measures
            figures = {span.peer_id: measures.of(span.peer_id).figures for span in plan.spans}
            figures |= {offer.peer_id: offer.figures for offer in self.found.offers}  # all plans by the same
            lanes = self._lanes(plan) if plan.lanes_mode else []
            ready = self._pads_ready(plan, prompt_tokens) if plan.lanes_mode else 0
            lent = lanes, ready, plan.placement
            return self._node.planner.predict_spans(self._model, plan.spans, figures, prompt_tokens, *lent)
        lanes, pads_ready = self._lanes(plan), self._pads_ready(plan, prompt_tokens)
        return self._node.planner.predict(self._model, plan.mode, lanes, prompt_tokens, pads_ready, plan.placement)

    def _lanes(self, plan: SessionPlan) -> list[LaneFigures]:
        """The figures of a plan's lanes; of stand-ins, for what no other lane takes."""
        own = [self._figures_of(lane) for lane in plan.lanes if not lane.stands_in]
        covered = frozenset[bytes]().union(*(figures.units or () for figures in own))
        stand_ins = [self._figures_of(lane) for lane in plan.lanes if lane.stands_in]
        return own + [replace(figures, units=(figures.units or covered) - covered) for figures in stand_ins]

    def _pads_ready(self, plan: SessionPlan, prompt_tokens: int) -> int:
        """Rows of pads that are there before the request begins; those that were made ahead, which are of layers,
        count where they are enough for the prompt and the beginning of an answer."""
        counts = self._config.pads_ahead and "head" not in plan.placement.lent
        ahead = self._node.pads.rows(self._model.model_id_bytes) if counts else 0
        enough = prompt_tokens + min(self._config.new_tokens, SOME_TOKENS)
        return max(self._config.pad_rows, ahead if ahead >= enough else 0)

    def learn(self, plan: SessionPlan, predicted: Cost, ttft_s: float, token_s: float) -> None:
        """Learn from the real times of a request that ran alone; 0 means not measured."""
        is_spans = bool(plan.spans)
        self._node.planner.learn(self._model, plan.mode, plan.placement, predicted, ttft_s, token_s, is_spans)

    def _plan(self, asked: Privacy, prompt_tokens: int, new_tokens: int) -> SessionPlan:
        return form(
            asked,
            self.found,
            lambda plan: self.predict(plan, prompt_tokens),
            new_tokens,
            self._placements,
        )

    def _named(self) -> tuple[PeerId, ...] | None:
        config = self._config
        if config.by_guards:
            return None
        bootstrap = self._node.config.bootstrap
        return config.named or tuple(address.peer_id for address in bootstrap if address.peer_id)

    def _allowed_placements(self) -> tuple[Placement, ...]:
        """What may be lent, given the user's choice and the weights that are here."""
        lend, model = self._config.lend, self._model
        if self._thin and self._config.privacy is Privacy.LOCAL:
            raise ConfigError(
                f"the weights of {model.name} are not here, so this device cannot compute it alone: "
                f"choose another --privacy, or fetch all of it with `kekahyde-node pull {model.model_id}`"
            )
        missing = frozenset(ref.kind for ref in model.units if not model.holds(ref))
        allowed = [placement for placement in allowed_placements(lend) if missing <= placement.lent]
        if not allowed:
            raise ConfigError(
                f"--lend {lend.value} needs weights that are not here ({', '.join(sorted(missing))}): "
                "use --lend all, or pull the model again with --thin and this --lend"
            )
        return tuple(allowed)

    def _figures_of(self, lane: LanePlan) -> LaneFigures:
        of, model_id = self._node.planner.measures.of, self._model.model_id_bytes
        guard = None if lane.pads is None else of(lane.pads).figures_for(model_id)
        return LaneFigures(of(lane.share).figures_for(model_id), guard, self.units_of(lane))
