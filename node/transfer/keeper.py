"""Keeps the layers that a node lends where the swarm needs them, as long as the node runs."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from node.errors import KekahydeError
from node.serving.hosting import HostedModels, layers_text, units_of_layers, whole_layers
from node.store.files import writing_to
from node.store.manifest import Manifest
from node.store.partial import REPLICA_FILE, PartialModel, partial_path
from node.transfer.budget import MemoryBudget
from node.transfer.coverage import Coverage, Holding, Move
from node.transfer.holders import holdings_of, layer_sizes, operator_of
from node.transfer.replicator import Replicator
from node.transfer.transfers import JOIN_S, Transfers
from node.transport.registry import PeerRegistry

log = logging.getLogger(__name__)

NORMS_AGAIN_S = 600.0
"""Pause before norms are asked for again that nobody had."""
ROUND_S = 2.0
"""Pause between two looks at the swarm."""
DISK_SHARE = 0.5
"""Part of the free disk that models which others published may take."""


class LayerKeeper:
    """Takes layers of models, and others when nodes come and go. One thread, from the first model on.

    Some models are *lent*: the user or an invitation named them. Others are *replicated*: members published them.

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
        self._lent: dict[str, MemoryBudget] = {}
        self._replicated: dict[str, MemoryBudget] = {}
        self._norms_after: dict[str, float] = {}
        """By model: before this time its norms are not asked for again."""
        self._coverage: dict[str, Coverage] = {}
        self._replicator: Replicator | None = None
        self._memory_bytes = 0
        self._models_dir = Path()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def lend(self, model_id: str, budget: MemoryBudget) -> None:
        """Serve the layers of a model that the swarm lacks most, within this memory, from now on."""
        self._transfers.take_layers(model_id, budget)
        self._lent[model_id] = budget
        self._start()

    def replicate(self, replicator: Replicator, memory_bytes: int, models_dir: Path) -> None:
        """Hold parts of what members publish, from now on.

        Args:
            memory_bytes: for these and the lent models together.
        """
        self._replicator, self._memory_bytes, self._models_dir = replicator, memory_bytes, models_dir
        self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="layer keeper", daemon=True)
            self._thread.start()

    @property
    def lent_bytes(self) -> int | None:
        """Memory for layers that are served; None where the node was told to lend to no model."""
        lent = list(self._lent.items())  # the control plane asks, another thread adds
        if not lent:
            return None
        if self._replicator is not None:
            return self._memory_bytes
        manifests = self._hosted.manifests
        known = ((budget, manifests.get(bytes.fromhex(model_id))) for model_id, budget in lent)
        return sum(
            budget.total_bytes if manifest is None else budget.for_others(manifest) for budget, manifest in known
        )

    def stop(self) -> None:
        """Nothing is taken or dropped any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._replicator is not None:
            self._replicator.close()

    def _main(self) -> None:
        while not self._stop.is_set():
            try:
                self._choose()
            except Exception:
                log.exception("what others published was not looked at")
            for model_id, budget in [*self._lent.items(), *self._replicated.items()]:
                try:
                    self._look(model_id, budget)
                except Exception:  # what is served goes on, whatever is wrong with the rest
                    log.exception("the layers of model %s were not looked at", model_id[:16])
            self._stop.wait(ROUND_S)

    # --- what members published

    def _choose(self) -> None:
        """Begin and end to replicate models."""
        if self._replicator is None:
            return
        whole = {model.model_id_bytes for model in self._hosted.models}
        excluded = whole | {bytes.fromhex(model_id) for model_id in self._lent}
        target = self._replicator.look(self._room_bytes(), excluded)
        for id_bytes, num_bytes in target.bytes_of.items():
            model_id = id_bytes.hex()
            if model_id not in self._replicated:
                log.info("model %s: a member published it; parts of it are held here", model_id[:16])
                self._own(model_id)
                self._transfers.take_layers(model_id, MemoryBudget(num_bytes))
            self._replicated[model_id] = MemoryBudget(num_bytes)
        for model_id in self._replicated.keys() - {id_bytes.hex() for id_bytes in target.bytes_of}:
            self._replicated[model_id] = MemoryBudget(0)
            id_bytes = bytes.fromhex(model_id)
            if id_bytes in target.withdrawn or id_bytes in whole or not self._hosted.held(id_bytes):
                self._release(model_id)

    def _room_bytes(self) -> int:
        """Memory for replicated models, which lie on the disk too."""
        manifests = self._hosted.manifests
        lent = 0
        for model_id, budget in self._lent.items():
            manifest = manifests.get(bytes.fromhex(model_id))
            size = budget.total_bytes if manifest is None else sum(ref.num_bytes for ref in manifest.units)
            lent += min(budget.total_bytes, size)
        held = sum(
            ref.num_bytes for model_id in self._replicated for ref in self._hosted.held(bytes.fromhex(model_id))
        )
        free = shutil.disk_usage(self._models_dir).free if self._models_dir.exists() else 0
        return max(0, min(self._memory_bytes - lent, held + int(DISK_SHARE * free)))

    def _release(self, model_id: str) -> None:
        """End a replica: what was fetched only for it is deleted."""
        job = self._transfers.jobs.running("units", model_id)
        if job is not None:
            job.stop.set()
            if not job.ended.wait(JOIN_S):
                return  # in the next round
        id_bytes = bytes.fromhex(model_id)
        is_whole = any(model.model_id_bytes == id_bytes for model in self._hosted.models)
        if not is_whole and not self._transfers.is_fetching(model_id):
            self._hosted.forget(id_bytes)
            folder = partial_path(self._models_dir, model_id)
            if (folder / REPLICA_FILE).exists():
                with writing_to(self._models_dir):
                    shutil.rmtree(folder, ignore_errors=True)
        self._replicated.pop(model_id, None)
        self._coverage.pop(model_id, None)
        log.info("model %s: its replica ended", model_id[:16])

    def _own(self, model_id: str) -> None:
        """Mark the folder of a replica, unless there is one already: then the user has begun to fetch the model."""
        folder = partial_path(self._models_dir, model_id)
        if not folder.exists():
            with writing_to(self._models_dir):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / REPLICA_FILE).touch()

    # --- one model

    def _look(self, model_id: str, budget: MemoryBudget) -> None:
        id_bytes = bytes.fromhex(model_id)
        manifest = self._hosted.manifest(id_bytes)
        if manifest is None or self._transfers.is_fetching(model_id):
            return
        if any(model.model_id_bytes == id_bytes for model in self._hosted.models):
            return  # all of it came here since, for the user's own prompts
        if model_id not in self._coverage:
            self._coverage[model_id] = Coverage(id_bytes, layer_sizes(manifest))
        mine = self._mine(id_bytes, manifest, budget.for_others(manifest))
        if self._lacks_norms(model_id, id_bytes):
            log.info("model %s: its norms are fetched, so that layers can be computed", model_id[:16])
            self._transfers.add_layers(model_id, ())
            return
        others = holdings_of(self._registry.usable(), id_bytes, self._hosted.manifests)
        self._obey(model_id, manifest, mine, self._coverage[model_id].step(time.monotonic(), mine, others))

    def _lacks_norms(self, model_id: str, id_bytes: bytes) -> bool:
        """Whether the float part of a model is to be asked for now: layers of it might be computed for the owner."""
        if not self._transfers.computes_spans() or not self._hosted.held(id_bytes):
            return False
        if self._hosted.layered(id_bytes) is not None or time.monotonic() < self._norms_after.get(model_id, 0.0):
            return False
        self._norms_after[model_id] = time.monotonic() + NORMS_AGAIN_S
        return True

    def _mine(self, model_id: bytes, manifest: Manifest, memory_bytes: int) -> Holding:
        held = whole_layers(manifest, self._hosted.held(model_id))
        leaving = self._hosted.leaving_of(model_id)
        sizes = layer_sizes(manifest)
        room = memory_bytes - sum(sizes[layer] for layer in held)
        me = self._transfers.peer_id
        return Holding(me, operator_of(me, self._operator()), frozenset(held - leaving), leaving, room)

    def _obey(self, model_id: str, manifest: Manifest, mine: Holding, move: Move) -> None:
        id_bytes = bytes.fromhex(model_id)
        if move.leaving - mine.leaving:
            log.info(
                "model %s: %s not within --memory, served until others hold as much",
                model_id[:16],
                layers_text(move.leaving),
            )
        self._hosted.leave(id_bytes, move.leaving | (move.drop & mine.leaving))
        if move.drop:
            log.info("model %s: no longer serves %s", model_id[:16], layers_text(move.drop))
            self._hosted.drop(id_bytes, move.drop)
            if model_id in self._replicated:
                self._delete(model_id, manifest, move.drop)
        if move.take:
            log.info("model %s: too few nodes hold %s", model_id[:16], layers_text(move.take))
            self._transfers.add_layers(model_id, move.take)

    def _delete(self, model_id: str, manifest: Manifest, layers: frozenset[int]) -> None:
        """A replica's layers that are not served any more take no disk either."""
        partial = PartialModel.find(self._models_dir, model_id)
        if partial is not None and (partial.path / REPLICA_FILE).exists():
            try:
                partial.delete(units_of_layers(manifest, layers))
            except KekahydeError as exc:
                log.warning("model %s: files of dropped layers stay: %s", model_id[:16], exc)
