"""What this node serves: units of whole and of partial models, growing while it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from node.errors import CorruptModelError
from node.model.unit import Unit, UnitRef
from node.store.held_layers import HeldLayers
from node.store.manifest import CLIENT_FILE, MANIFEST_FILE, UNITS_FOLDER, Manifest, unit_places
from node.store.stored import StoredModel
from node.store.unit_file import unit_path
from protocol.limits import MAX_HOSTED_MODELS, MAX_HOSTED_UNITS
from protocol.linear.field import Weights
from protocol.link.hello import HostedModel
from protocol.membership.records import MAX_LAYER_RANGES, HostedLayers

log = logging.getLogger(__name__)

MAX_ANNOUNCED_UNITS = 1600
"""Most hashes in one hello, which is a control frame of at most 64 KiB; a record says the rest as layers."""
MAX_LEAVING_MODELS = 2

COMPLETE = "complete"


class Holding(Protocol):
    """A model of which units are held: a StoredModel, or a PartialModel."""

    path: Path
    manifest: Manifest

    @property
    def model_id_bytes(self) -> bytes: ...

    def unit_by_hash(self, sha256: bytes) -> Unit | None: ...

    def unload(self, refs: Collection[UnitRef]) -> None: ...


class BlobPlace(Struct, frozen=True):
    """Where the bytes of a blob lie."""

    path: Path
    num_bytes: int


class HostedModels:
    """The models whose units this node serves. Safe to share between threads.

    Args:
        models: whole ones; every unit is mapped and checked (raises CorruptModelError).
    """

    def __init__(self, models: Sequence[StoredModel]) -> None:
        self._lock = threading.Lock()
        self._holdings: dict[bytes, Holding] = {}
        self._refs: dict[bytes, tuple[UnitRef, ...]] = {}
        self._manifests: dict[bytes, Manifest] = {}
        self._leaving: dict[bytes, frozenset[int]] = {}
        self._layered: dict[bytes, StoredModel] = {}
        """Models that are not whole, and whose layers can be computed."""
        self.on_change: Callable[[], None] = lambda: None
        """Called, by whoever made it, after every change of what is held."""
        for model in models:
            for ref in model.units:
                model.unit(ref.layer, ref.kind)
            self._holdings[model.model_id_bytes] = model
            self._refs[model.model_id_bytes] = tuple(model.units)
            self._manifests[model.model_id_bytes] = model.manifest

    def hold(self, holding: Holding, refs: Collection[UnitRef]) -> None:
        """Serve exactly these units of a model from now on."""
        with self._lock:
            self._holdings[holding.model_id_bytes] = holding
            self._manifests[holding.model_id_bytes] = holding.manifest
            chosen = set(refs)
            self._refs[holding.model_id_bytes] = tuple(ref for ref in holding.manifest.units if ref in chosen)
        self.on_change()

    def leave(self, model_id: bytes, layers: Collection[int]) -> None:
        """Tell the swarm that these layers will be dropped, and are served until then."""
        with self._lock:
            if self._leaving.get(model_id, frozenset()) == frozenset(layers):
                return
            self._leaving[model_id] = frozenset(layers)
        self.on_change()

    def drop(self, model_id: bytes, layers: Collection[int]) -> None:
        """Serve these layers of a model no longer, and free what they take."""
        with self._lock:
            gone = set(units_of_layers(self._manifests[model_id], layers))
            self._holdings[model_id].unload(gone)
            self._refs[model_id] = tuple(ref for ref in self._refs.get(model_id, ()) if ref not in gone)
            self._leaving[model_id] = self._leaving.get(model_id, frozenset()).difference(layers)
        self.on_change()

    def forget(self, model_id: bytes) -> None:
        """Serve nothing of a model any more; even its manifest is not known."""
        with self._lock:
            holding = self._holdings.pop(model_id, None)
            if holding is not None:
                holding.unload(self._refs.get(model_id, ()))
            for known in (self._refs, self._manifests, self._leaving, self._layered):
                known.pop(model_id, None)
        self.on_change()

    def leaving_of(self, model_id: bytes) -> frozenset[int]:
        """Layers of a model that will be dropped."""
        with self._lock:
            return self._leaving.get(model_id, frozenset())

    def held(self, model_id: bytes) -> tuple[UnitRef, ...]:
        """Units of a model that are served."""
        with self._lock:
            return self._refs.get(model_id, ())

    def bytes_of_parts(self, except_for: bytes) -> int:
        """Bytes of the units that are served of models which are not whole, one model left out."""
        with self._lock:
            return sum(
                ref.num_bytes
                for model_id, refs in self._refs.items()
                if model_id != except_for and not isinstance(self._holdings[model_id], StoredModel)
                for ref in refs
            )

    @property
    def models(self) -> list[StoredModel]:
        """Every whole model, in the order in which it was given."""
        with self._lock:
            return [holding for holding in self._holdings.values() if isinstance(holding, StoredModel)]

    def layered(self, model_id: bytes) -> StoredModel | None:
        """A model whose layers can be computed here, as far as they are held; None if not even its norms are."""
        with self._lock:
            holding, known = self._holdings.get(model_id), self._layered.get(model_id)
        if holding is None or isinstance(holding, StoredModel):
            return holding
        if known is None and (holding.path / CLIENT_FILE).exists():
            try:
                known = HeldLayers(holding.path)
            except CorruptModelError as exc:
                log.error("layers of a model cannot be computed here: %s", exc)
                return None
            with self._lock:
                self._layered[model_id] = known
        return known

    @property
    def model_ids(self) -> list[bytes]:
        with self._lock:
            return list(self._holdings)

    def learn(self, model_id: bytes, manifest: Manifest) -> None:
        """The manifest of a model has become known, though no part of it is served yet."""
        with self._lock:
            self._manifests[model_id] = manifest
        self.on_change()

    @property
    def known(self) -> list[bytes]:
        """Models of which the manifest is known."""
        with self._lock:
            return list(self._manifests)

    @property
    def manifests(self) -> dict[bytes, Manifest]:
        """Every manifest that is known, by the id of its model."""
        with self._lock:
            return dict(self._manifests)

    def manifest(self, model_id: bytes) -> Manifest | None:
        """The manifest of a model, where it is known."""
        with self._lock:
            return self._manifests.get(model_id)

    @property
    def announced(self) -> tuple[HostedModel, ...]:
        """What a hello says of them: unit hashes, as many as it may hold."""
        left, announced = MAX_ANNOUNCED_UNITS, []
        with self._lock:
            held = list(self._refs.items())[:MAX_HOSTED_MODELS]
        for model_id, refs in held:
            hashes = tuple(ref.sha256 for ref in refs)[: min(left, MAX_HOSTED_UNITS)]
            left -= len(hashes)
            announced.append(HostedModel(model_id, hashes))
        return tuple(announced)

    @property
    def layers(self) -> tuple[HostedLayers, ...]:
        """What a record says of them: a layer where every unit of it is held; the head is the one after the last."""
        with self._lock:
            held = [(model_id, self._holdings[model_id].manifest, refs) for model_id, refs in self._refs.items()]
        stated = []
        for model_id, manifest, refs in held[:MAX_HOSTED_MODELS]:
            ranges = ranges_of(whole_layers(manifest, refs))[:MAX_LAYER_RANGES]
            stated.append(HostedLayers(model_id, ranges))
        return tuple(stated)

    @property
    def leaving(self) -> tuple[HostedLayers, ...]:
        """What a record says of layers that will be dropped."""
        with self._lock:
            leaving = [(model_id, layers) for model_id, layers in self._leaving.items() if layers]
        stated = leaving[:MAX_LEAVING_MODELS]  # a record is small; the others of the node's models are told later
        return tuple(HostedLayers(model_id, ranges_of(layers)[:MAX_LAYER_RANGES]) for model_id, layers in stated)

    def weights_of(self, model_id: bytes, sha256: bytes) -> Weights | None:
        """Weights of a unit; None where it is not held."""
        unit = self._unit(model_id, sha256)
        return None if unit is None else unit.held

    def row_norm_of(self, model_id: bytes, sha256: bytes) -> float | None:
        """Largest norm of a row of a unit; None where it is not held."""
        unit = self._unit(model_id, sha256)
        return None if unit is None else unit.max_row_norm

    def _unit(self, model_id: bytes, sha256: bytes) -> Unit | None:
        with self._lock:
            holding = self._holdings.get(model_id)
        return None if holding is None else holding.unit_by_hash(sha256)

    def find_blob(self, sha256: bytes) -> BlobPlace | None:
        """A manifest, a file or a unit of a model that is served; None for anything else."""
        with self._lock:
            for model_id, holding in self._holdings.items():
                path = _path_in(holding, model_id, self._refs[model_id], sha256)
                if path is not None and path.is_file():
                    return BlobPlace(path, path.stat().st_size)
        return None


def _path_in(holding: Holding, model_id: bytes, refs: Collection[UnitRef], sha256: bytes) -> Path | None:
    if sha256 == model_id:
        return holding.path / MANIFEST_FILE
    for name, known in holding.manifest.files.items():
        if known == sha256:
            return holding.path / name
    if any(ref.sha256 == sha256 for ref in refs):
        return unit_path(holding.path / UNITS_FOLDER, sha256)
    return None


def layer_index(manifest: Manifest, ref: UnitRef) -> int:
    """The layer of a unit as records count: the head is the layer after the last."""
    return manifest.config.num_layers if ref.layer is None else ref.layer


def whole_layers(manifest: Manifest, refs: Collection[UnitRef]) -> set[int]:
    """Layers of which every unit is among these."""
    present = {(ref.layer, ref.kind) for ref in refs}
    lacking = {layer for layer, kind in unit_places(manifest.config) if (layer, kind) not in present}
    layers = {ref.layer for ref in refs} - lacking
    return {manifest.config.num_layers if layer is None else layer for layer in layers}


def units_of_layers(manifest: Manifest, layers: Collection[int]) -> list[UnitRef]:
    """Units of these layers, in the order of application."""
    return [ref for ref in manifest.units if layer_index(manifest, ref) in layers]


def ranges_of(layers: Collection[int]) -> tuple[tuple[int, int], ...]:
    """Half-open ranges, in order, that hold exactly these layers."""
    starts = sorted(layer for layer in layers if layer - 1 not in layers)
    ends = sorted(layer + 1 for layer in layers if layer + 1 not in layers)
    return tuple(zip(starts, ends, strict=True))


def ranges_text(layers: Collection[int]) -> str:
    """For people: `0-4, 7`, both ends inclusive."""
    return ", ".join(str(start) if end == start + 1 else f"{start}-{end - 1}" for start, end in ranges_of(layers))


def missing_layers(refs: Iterable[UnitRef], held: Collection[bytes]) -> set[int]:
    """Layers of which a unit is not among these hashes."""
    return {ref.layer for ref in refs if ref.layer is not None and ref.sha256 not in held}


def units_text(refs: Collection[UnitRef]) -> str:
    """`layers 3-5 and the head`: where these units belong; empty for none."""
    layers = {ref.layer for ref in refs if ref.layer is not None}
    named = [layers_text(layers)] if layers else []
    return " and ".join([*named, *(["the head"] if any(ref.layer is None for ref in refs) else [])])


def coverage_text(missing: Collection[int]) -> str:
    """`complete`, or `layers 3-5 are missing`."""
    if not missing:
        return COMPLETE
    return f"{layers_text(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def layers_text(layers: Collection[int]) -> str:
    """`layer 3`, or `layers 3-5, 7`."""
    return f"layer{'s' * (len(layers) > 1)} {ranges_text(set(layers))}"
