"""The planner of a node: predicts times from what all of its sessions have measured. Thread-safe.

It decides nothing: `node.session.formation` decides, based on these predictions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from node.kernels.interface import Kernels
from node.measures.peers import Measures, PeerFigures
from node.measures.series import WEIGHT
from node.model.unit import UnitRef
from node.planning.cost import Cost, local_cost, remote_cost
from node.planning.figures import DeviceFigures, LaneFigures
from node.planning.kept import KeptMeasures
from node.planning.placement import LAYERS_LENT, Placement
from node.planning.probe import probe
from node.planning.spans import SpanPlan, span_cost
from node.privacy import Privacy
from node.store.stored import StoredModel
from protocol.identity import PeerId

log = logging.getLogger(__name__)

CORRECTION_LIMIT = 8.0
"""A prediction is never corrected by more than this, up or down."""


NO_PADS_NEEDED = 1 << 30


class Planner:
    """Predicts costs, and learns from the outcome.

    Args:
        path: the file of peers' figures; None: what is measured is forgotten at the end.
    """

    def __init__(self, kernels: Kernels, measures: Measures, path: Path | None = None) -> None:
        self.measures = measures
        self._kept = KeptMeasures(path, measures)
        self._kernels = kernels
        self._lock = threading.Lock()
        self._devices: dict[str, DeviceFigures] = {}
        self._corrections: dict[tuple[str, Privacy, Placement, bool], tuple[float, float]] = {}
        """By model, mode, placement, and whether own devices compute whole layers."""

    def keep(self) -> None:
        """Keep what was measured for the next process; called by one thread at a time."""
        self._kept.write()

    def device(self, model: StoredModel) -> DeviceFigures:
        """This device's figures for a model, measured at the first call."""
        with self._lock:
            if model.model_id not in self._devices:
                self._devices[model.model_id] = probe(model, self._kernels)
            return self._devices[model.model_id]

    def predict(
        self,
        model: StoredModel,
        mode: Privacy,
        lanes: Sequence[LaneFigures],
        prompt_tokens: int,
        pads_made: int = 0,
        placement: Placement = LAYERS_LENT,
    ) -> Cost:
        """The predicted cost of a request in this mode over these lanes, corrected by earlier outcomes."""
        units = [ref for ref in model.units if ref.layer is not None or placement.is_lent(ref)]
        device = self.device(model)
        if mode is Privacy.TRUSTED:
            pads_made, device = NO_PADS_NEEDED, replace(device, most_waves=1)
        cost = remote_cost(units, device, lanes, prompt_tokens, pads_made, placement) if lanes else None
        cost = local_cost(units, device, prompt_tokens) if cost is None else cost
        with self._lock:
            return cost.scaled(*self._corrections.get((model.model_id, mode, placement, False), (1.0, 1.0)))

    def predict_spans(
        self,
        model: StoredModel,
        spans: Sequence[SpanPlan],
        figures: Mapping[PeerId, PeerFigures],
        prompt_tokens: int,
        lanes: Sequence[LaneFigures] = (),
        pads_made: int = 0,
        placement: Placement = LAYERS_LENT,
    ) -> Cost:
        """The predicted cost of a request through these spans, and through lanes for what they leave out, corrected
        by earlier outcomes."""
        device = self.device(model)
        layers = [ref for ref in model.units if ref.layer is not None]
        heads = [ref for ref in model.units if ref.layer is None and placement.is_lent(ref)]

        def rest(left_out: Sequence[UnitRef]) -> Cost:
            return remote_cost([*left_out, *heads], device, lanes, prompt_tokens, pads_made, placement)

        cost = span_cost(layers, device, spans, figures, prompt_tokens, rest if lanes else None)
        with self._lock:
            return cost.scaled(*self._corrections.get((model.model_id, Privacy.TRUSTED, placement, True), (1.0, 1.0)))

    def learn(
        self,
        model: StoredModel,
        mode: Privacy,
        placement: Placement,
        predicted: Cost,
        ttft_s: float,
        token_s: float,
        is_spans: bool = False,
    ) -> None:
        """Learn from the real times of a request with this prediction; 0 means not measured. A prediction from what
        was only assumed of the peers teaches nothing: the next one will be another."""
        if not predicted.is_measured:
            return
        with self._lock:
            key = model.model_id, mode, placement, is_spans
            before = self._corrections.get(key, (1.0, 1.0))
            pairs = ((predicted.ttft_s, ttft_s), (predicted.token_s, token_s))
            after = [_corrected(factor, said_s, was_s) for factor, (said_s, was_s) in zip(before, pairs, strict=True)]
            self._corrections[key] = (after[0], after[1])
        log.debug("%s %s %s: corrections %s", model.name, mode.value, placement.name, after)


def _corrected(factor: float, said_s: float, was_s: float) -> float:
    """The new correction factor: a weighted mean of the old one and the one that would have been right."""
    if said_s <= 0 or was_s <= 0:
        return factor
    right = factor * was_s / said_s
    return min(max(factor + WEIGHT * (right - factor), 1 / CORRECTION_LIMIT), CORRECTION_LIMIT)
