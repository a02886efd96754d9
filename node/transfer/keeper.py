"""Keeps the layers that a node lends where the swarm needs them, as long as the node runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from node.serving.hosting import HostedModels, layers_text, whole_layers
from node.store.manifest import Manifest
from node.transfer.budget import MemoryBudget
from node.transfer.coverage import Coverage, Holding, Move
from node.transfer.holders import holdings_of, layer_sizes, operator_of
from node.transfer.transfers import Transfers
from node.transport.registry import PeerRegistry

log = logging.getLogger(__name__)

ROUND_S = 2.0
"""Pause between two looks at the swarm."""


class LayerKeeper:
    """Takes layers of models, and others when nodes come and go. One thread, from the first model on.

    Args:
        operator: who runs this node, as its hello says.
    """

    def __init__(
        self, transfers: Transfers, registry: PeerRegistry, hosted: HostedModels, operator: Callable[[], bytes]
    ) -> None:
        self._transfers = transfers
        self._registry = registry
        self._hosted = hosted
        self._operator = operator
        self._budgets: dict[str, MemoryBudget] = {}
        self._coverage: dict[str, Coverage] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def lend(self, model_id: str, budget: MemoryBudget) -> None:
        """Serve the layers of a model that the swarm lacks most, within this memory, from now on."""
        self._transfers.take_layers(model_id, budget)
        self._budgets[model_id] = budget
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="layer keeper", daemon=True)
            self._thread.start()

    @property
    def lent_bytes(self) -> int | None:
        """Memory for layers that are served; None where the node was told to lend to no model."""
        budgets = list(self._budgets.items())  # the control plane asks, another thread adds
        if not budgets:
            return None
        manifests = self._hosted.manifests
        known = ((budget, manifests.get(bytes.fromhex(model_id))) for model_id, budget in budgets)
        return sum(
            budget.total_bytes if manifest is None else budget.for_others(manifest) for budget, manifest in known
        )

    def stop(self) -> None:
        """Nothing is taken or dropped any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _main(self) -> None:
        while not self._stop.wait(ROUND_S):
            for model_id, budget in list(self._budgets.items()):
                try:
                    self._look(model_id, budget)
                except Exception:  # what is served goes on, whatever is wrong with the rest
                    log.exception("the layers of model %s were not looked at", model_id[:16])

    def _look(self, model_id: str, budget: MemoryBudget) -> None:
        id_bytes = bytes.fromhex(model_id)
        manifest = self._hosted.manifest(id_bytes)
        if manifest is None or self._transfers.jobs.running("units", model_id) is not None:
            return
        if any(model.model_id_bytes == id_bytes for model in self._hosted.models):
            return  # all of it came here since, for the user's own prompts
        if model_id not in self._coverage:
            self._coverage[model_id] = Coverage(id_bytes, layer_sizes(manifest))
        mine = self._mine(id_bytes, manifest, budget.for_others(manifest))
        others = holdings_of(self._registry.usable(), id_bytes, self._hosted.manifests)
        self._obey(model_id, mine, self._coverage[model_id].step(time.monotonic(), mine, others))

    def _mine(self, model_id: bytes, manifest: Manifest, memory_bytes: int) -> Holding:
        held = whole_layers(manifest, self._hosted.held(model_id))
        leaving = self._hosted.leaving_of(model_id)
        sizes = layer_sizes(manifest)
        room = memory_bytes - sum(sizes[layer] for layer in held)
        me = self._transfers.peer_id
        return Holding(me, operator_of(me, self._operator()), frozenset(held - leaving), leaving, room)

    def _obey(self, model_id: str, mine: Holding, move: Move) -> None:
        if move.leaving - mine.leaving:
            log.info(
                "model %s: %s not within --memory, served until others hold as much",
                model_id[:16],
                layers_text(move.leaving),
            )
        self._hosted.leave(bytes.fromhex(model_id), move.leaving | (move.drop & mine.leaving))
        if move.drop:
            log.info("model %s: no longer serves %s", model_id[:16], layers_text(move.drop))
            self._hosted.drop(bytes.fromhex(model_id), move.drop)
        if move.take:
            log.info("model %s: too few nodes hold %s", model_id[:16], layers_text(move.take))
            self._transfers.add_layers(model_id, move.take)
