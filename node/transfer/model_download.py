"""Fetches a model from peers: its manifest, then layers or all of it; layers are served as they come."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from node.errors import ConfigError
from node.model.config import UnitKind
from node.model.unit import UnitRef
from node.serving.hosting import ranges_text, units_of_layers, whole_layers
from node.store.importer import MAX_COPIED_BYTES
from node.store.manifest import CLIENT_FILE, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest
from node.store.partial import PIECES_FOLDER, PartialModel, partial_path
from node.store.stored import StoredModel
from node.store.thin import CHECKS_FOLDER, is_reduced, reduce_unit
from node.transfer.budget import MemoryBudget
from node.transfer.choice import ENOUGH_OPERATORS, choose_layers, start_of
from node.transfer.disk import BlobDisk
from node.transfer.download import TURN_S, CancelledError, Download
from node.transfer.holders import holders_of, layer_views
from node.transfer.jobs import Job
from node.transfer.surroundings import Surroundings
from protocol.transfer.actions import Wanted

log = logging.getLogger(__name__)

SETTLE_S = 1.5
"""Pause after the first holder was found, so that others are known before layers are chosen."""
SPARE_BYTES = 64 << 20
"""Bytes to leave free on the disk."""
FLOAT_BYTES = 4
PASSING_UNITS = 4
"""Most units on the disk at a time while a thin model is fetched."""


class ModelDownload:
    """Fetches a model. Its methods block; one job, one thread."""

    def __init__(self, around: Surroundings, job: Job, model_id: str, patience_s: float | None) -> None:
        self._around = around
        self._job = job
        self._model_id = model_id
        self._id_bytes = bytes.fromhex(model_id)
        self._patience_s = patience_s
        self._partial: PartialModel | None = None

    def bring_layers(self, budget: MemoryBudget) -> None:
        """Fetch and serve the layers that the swarm lacks most, as far as the memory allows."""
        partial = self._open()
        memory_bytes = budget.for_others(partial.manifest)
        self._settle()
        views = layer_views(self._around.registry.usable(), self._id_bytes, partial.manifest)
        kept = whole_layers(partial.manifest, [ref for ref in partial.manifest.units if partial.has(ref)])
        layers = choose_layers(views, memory_bytes, start_of(self._around.peer_id, len(views)), kept)
        if not layers:
            need = min((view.num_bytes for view in views), default=0)
            raise ConfigError(
                f"{memory_bytes / 2**20:.0f} MiB of memory hold no layer of {self._model_id[:16]}: each layer "
                f"takes {need / 2**20:.1f} MiB: lend more with --memory"
            )
        beyond = {layer for layer in kept - set(layers) if views[layer].num_operators < ENOUGH_OPERATORS}
        self._serve(partial, units_of_layers(partial.manifest, beyond))  # until others have them: see `coverage`
        self._take(partial, layers)

    def bring_these(self, layers: Collection[int]) -> None:
        """Fetch and serve these layers, in this order, beside what is served."""
        self._take(self._open(), list(layers))

    def _take(self, partial: PartialModel, layers: Sequence[int]) -> None:
        log.info("model %s: layers %s are taken", self._model_id[:16], ranges_text(set(layers)))
        units = units_of_layers(partial.manifest, set(layers))
        self._job.total_bytes = sum(ref.num_bytes for ref in units)
        first = set(units_of_layers(partial.manifest, set(layers[:1])))
        self._fetch(partial, units, first, [CLIENT_FILE] if self._around.computes_spans() else [])

    def bring_all(self, instead_of: Job | None = None) -> Path:
        """Fetch the whole model if it is not here yet; returns its folder.

        Args:
            instead_of: a job that fetches layers of the same model to serve them. It ends first: both would write the
                same files, and this one brings its layers too.
        """
        if instead_of is not None:
            instead_of.stop.set()
        self._wait_for(instead_of)
        present = self._around.models_dir / self._model_id
        if (present / MANIFEST_FILE).exists():
            return present
        partial = self._open()
        partial.claim()
        units, files = list(partial.manifest.units), list(partial.manifest.files)
        self._job.total_bytes = sum(ref.num_bytes for ref in units)
        self._fetch(partial, units, set(), files)
        path = partial.finish()
        stored = StoredModel(path)
        for ref in stored.units:  # map and check them in this thread, not in the one that answers chunks
            stored.unit(ref.layer, ref.kind)
        self._around.hosted.hold(stored, stored.units)
        return path

    def bring_thin(self, lent: Collection[UnitKind], after: Job | None = None) -> Path:
        """Fetch a thin model: of units of the lent kinds only the checks are kept. The other units, the files, and
        units that this node serves are kept too.

        Args:
            after: a job that fetches layers of the same model to serve them; this one waits for it.
        """
        self._wait_for(after)
        whole = self._around.models_dir / self._model_id
        if (whole / MANIFEST_FILE).exists():
            raise ConfigError(
                f"all of {self._model_id[:16]} is here; a thin model would save nothing: remove {whole}, or choose "
                "another data directory with --data-dir"
            )
        partial = self._open()
        partial.claim()
        present = self._around.hosted.held(self._id_bytes)
        reduced, missing = [], []
        for ref in partial.manifest.units:
            if ref.kind in lent and is_reduced(partial, ref):
                reduced.append(ref)
            elif ref.kind in lent and partial.has(ref):
                self._reduce(partial, ref, keep=ref in present)
                reduced.append(ref)
            else:
                missing.append(ref)
        self._job.total_bytes = sum(ref.num_bytes for ref in partial.manifest.units)
        self._job.advance(sum(ref.num_bytes for ref in reduced), fetched=False)
        passing = max((ref.num_bytes for ref in missing if ref.kind in lent), default=0) * PASSING_UNITS
        staying = sum(ref.num_bytes for ref in missing if ref.kind not in lent)

        def on_whole(ref: UnitRef) -> None:
            if ref.kind in lent:
                self._reduce(partial, ref)

        self._get(partial, missing, set(), list(partial.manifest.files), on_whole, passing + staying)
        (partial.path / CHECKS_FOLDER).mkdir(mode=0o700, exist_ok=True)
        return partial.path

    def _reduce(self, partial: PartialModel, ref: UnitRef, keep: bool = False) -> None:
        reduce_unit(partial.path, ref, self._around.kernels, secrets.token_bytes, keep)

    # --- parts

    def _wait_for(self, other: Job | None) -> None:
        while other is not None and not other.ended.wait(TURN_S):
            if self._job.stop.is_set():
                raise CancelledError("the transfer was stopped")

    def _open(self) -> PartialModel:
        """The partial model; its manifest is fetched if it is not here yet."""
        partial = PartialModel.find(self._around.models_dir, self._model_id)
        if partial is None:
            folder = partial_path(self._around.models_dir, self._model_id)
            disk = BlobDisk(folder / PIECES_FOLDER, lambda sha256: [folder / MANIFEST_FILE])
            self._download(disk, None, lambda sha256: None).run([Wanted(self._id_bytes, MAX_MANIFEST_BYTES)])
            partial = PartialModel.find(self._around.models_dir, self._model_id)
            if partial is None:
                raise ConfigError(f"the manifest of {self._model_id} cannot be read at {folder}: look at the disk")
            self._job.done_bytes = self._job.total_bytes = self._job.fetched_bytes = 0  # the manifest does not count
        self._partial = partial
        self._around.hosted.learn(self._id_bytes, partial.manifest)
        return partial

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_S
        while not self._job.stop.is_set() and (left_s := deadline - time.monotonic()) > 0:
            self._job.stop.wait(left_s)

    def _fetch(
        self, partial: PartialModel, units: Sequence[UnitRef], first: set[UnitRef], files: Sequence[str]
    ) -> None:
        """Fetch what is missing of these, and serve it as it comes."""
        arrived = {ref for ref in units if partial.has(ref)}
        self._serve(partial, arrived)

        def on_whole(ref: UnitRef) -> None:
            arrived.add(ref)
            self._serve(partial, arrived)

        self._get(partial, units, first, files, on_whole)

    def _get(
        self,
        partial: PartialModel,
        units: Sequence[UnitRef],
        first: set[UnitRef],
        files: Sequence[str],
        on_whole: Callable[[UnitRef], None],
        needs_bytes: int | None = None,
    ) -> None:
        """Fetch what is missing of these.

        Args:
            first: units that come before the others.
            needs_bytes: disk space that the units need; None: space for all missing units.
        """
        present = [ref for ref in units if partial.has(ref)]
        self._job.advance(sum(ref.num_bytes for ref in present), fetched=False)
        missing = [ref for ref in units if ref not in set(present)]
        wanted = [Wanted(ref.sha256, ref.num_bytes, ref.num_bytes, int(ref not in first)) for ref in missing]
        for name in files:
            if partial.has_file(name):
                num_bytes = (partial.path / name).stat().st_size
                self._job.total_bytes += num_bytes
                self._job.advance(num_bytes, fetched=False)
            else:
                wanted.append(Wanted(partial.manifest.files[name], file_limit(partial.manifest, name)))
        self._check_room(sum(one.size_bytes or 0 for one in wanted) if needs_bytes is None else needs_bytes)
        by_hash = {ref.sha256: ref for ref in missing}

        def on_blob(sha256: bytes) -> None:
            if sha256 in by_hash:
                on_whole(by_hash[sha256])

        disk = BlobDisk(partial.pieces, partial.destination)
        self._download(disk, partial.manifest, on_blob).run(wanted)

    def _serve(self, partial: PartialModel, arrived: Sequence[UnitRef] | set[UnitRef]) -> None:
        """Serve every complete layer, and tell the swarm if there are new ones."""
        layers = whole_layers(partial.manifest, arrived)
        held = set(self._around.hosted.held(self._id_bytes))
        served = held.union(units_of_layers(partial.manifest, layers))
        if served != held:
            partial.load([ref for ref in served if partial.unit_by_hash(ref.sha256) is None])
            self._around.hosted.hold(partial, served)
            log.info("model %s: layers %s are served", self._model_id[:16], ranges_text(layers))

    def _download(self, disk: BlobDisk, manifest: Manifest | None, on_whole: Callable[[bytes], None]) -> Download:
        around = self._around
        return Download(
            around.secure,
            self._job,
            disk,
            lambda: holders_of(around.registry.usable(), self._id_bytes, manifest),
            on_whole,
            around.on_liar,
            self._patience_s,
        )

    def _check_room(self, num_bytes: int) -> None:
        free = shutil.disk_usage(self._around.models_dir).free
        if num_bytes + SPARE_BYTES > free:
            raise ConfigError(
                f"{num_bytes / 2**20:.0f} MiB must be fetched, but {free / 2**20:.0f} MiB are free on the disk of "
                f"{self._around.models_dir}: free space there or choose another data directory with --data-dir"
            )


def file_limit(manifest: Manifest, name: str) -> int:
    """Largest size that a file of a model may have; for the float part it follows from the architecture."""
    if name != CLIENT_FILE:
        return MAX_COPIED_BYTES
    config = manifest.config
    widths = sum(sum(config.unit_shape(ref.kind)) for ref in manifest.units)
    return FLOAT_BYTES * (config.vocab_size * config.hidden_size + 8 * widths) + (16 << 20)
