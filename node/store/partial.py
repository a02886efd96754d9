"""A model that is being fetched from peers: first its manifest, then its other parts, until it is complete.

    <models>/.partial/<model id>/manifest.cbor, units/<sha256>.w8, client.safetensors, ...   complete files only
    <models>/.partial/<model id>/pieces/<sha256>                                             files being fetched

A folder `<models>/<model id>` is always complete; so a partial model has another folder, and moves there at the end.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from node.errors import CorruptModelError
from node.model.unit import Unit, UnitRef
from node.store.files import remember_moved, sync_folder, verify_file, write_synced, writing_to
from node.store.manifest import MANIFEST_FILE, UNITS_FOLDER, Manifest, model_id_of
from node.store.unit_file import load_unit, unit_path

PARTIAL_FOLDER = ".partial"
PIECES_FOLDER = "pieces"
REPLICA_FILE = "replica"
"""Marks a folder that was begun for others alone, and may be deleted; a pull of the user's takes the mark away."""


class PartialModel:
    """Some units of a model, and perhaps its files. Safe to share between threads.

    Raises:
        CorruptModelError: the manifest in the folder is not the manifest of the model.
    """

    def __init__(self, models_dir: Path, model_id: str, content: bytes) -> None:
        if model_id_of(content) != model_id:
            raise CorruptModelError(f"a manifest of {model_id} has the wrong hash; fetch it again")
        self.models_dir = models_dir
        self.model_id = model_id
        self.manifest = Manifest.decode(content, f"the manifest of {model_id}")
        self.path = partial_path(models_dir, model_id)
        self._refs = {ref.sha256: ref for ref in self.manifest.units}
        self._loaded: dict[bytes, Unit] = {}
        self._lock = threading.Lock()

    @classmethod
    def create(cls, models_dir: Path, model_id: str, content: bytes) -> Self:
        """Creates the folder with the manifest, or opens the existing one."""
        model = cls(models_dir, model_id, content)
        with writing_to(models_dir):
            for folder in (model.path / UNITS_FOLDER, model.path / PIECES_FOLDER):
                folder.mkdir(parents=True, exist_ok=True)
            if not (model.path / MANIFEST_FILE).exists():
                temporary = model.path / f".{MANIFEST_FILE}.{os.getpid()}"
                write_synced(temporary, content)
                temporary.replace(model.path / MANIFEST_FILE)
        return model

    @classmethod
    def find(cls, models_dir: Path, model_id: str) -> Self | None:
        """The partial model of an earlier run of this node; None if there is none that can be used."""
        try:
            return cls(models_dir, model_id, (partial_path(models_dir, model_id) / MANIFEST_FILE).read_bytes())
        except (OSError, CorruptModelError):
            return None

    @property
    def model_id_bytes(self) -> bytes:
        return bytes.fromhex(self.model_id)

    @property
    def held(self) -> tuple[UnitRef, ...]:
        """The loaded units, which may be used."""
        with self._lock:
            return tuple(self._loaded[ref.sha256].ref for ref in self.manifest.units if ref.sha256 in self._loaded)

    def has(self, ref: UnitRef) -> bool:
        """Whether a unit's file exists and is intact; a damaged one is removed."""
        path = unit_path(self.path / UNITS_FOLDER, ref.sha256)
        try:
            return path.stat().st_size == ref.num_bytes and (verify_file(path, ref.sha256) or True)
        except (OSError, CorruptModelError):
            path.unlink(missing_ok=True)
            return False

    def has_file_of(self, ref: UnitRef) -> bool:
        """Whether a unit's file exists and has its size; it is not read."""
        path = unit_path(self.path / UNITS_FOLDER, ref.sha256)
        return path.is_file() and path.stat().st_size == ref.num_bytes

    def has_file(self, name: str) -> bool:
        """Whether a file beside the units exists and is intact; a damaged one is removed."""
        try:
            return (self.path / name).exists() and (verify_file(self.path / name, self.manifest.files[name]) or True)
        except CorruptModelError:
            (self.path / name).unlink(missing_ok=True)
            return False

    def load(self, refs: Iterable[UnitRef]) -> None:
        """Load units whose files exist, so that they can be used.

        Raises:
            CorruptModelError: a file is damaged.
        """
        for ref in refs:
            unit = load_unit(self.path / UNITS_FOLDER, ref)
            with self._lock:
                self._loaded[ref.sha256] = unit

    def unload(self, refs: Iterable[UnitRef]) -> None:
        """Take units out of use; their files stay."""
        with self._lock:
            for ref in refs:
                self._loaded.pop(ref.sha256, None)

    def claim(self) -> None:
        """The user wants this model: from now on nothing of it is deleted unasked."""
        (self.path / REPLICA_FILE).unlink(missing_ok=True)

    def delete(self, refs: Iterable[UnitRef]) -> None:
        """Remove the files of units that are not in use."""
        with writing_to(self.models_dir):
            for ref in refs:
                unit_path(self.path / UNITS_FOLDER, ref.sha256).unlink(missing_ok=True)

    def unit_by_hash(self, sha256: bytes) -> Unit | None:
        """A loaded unit; None for any other."""
        with self._lock:
            return self._loaded.get(sha256)

    def destination(self, sha256: bytes) -> list[Path]:
        """The paths of a blob of this model."""
        if sha256 in self._refs:
            return [unit_path(self.path / UNITS_FOLDER, sha256)]
        return [self.path / name for name, known in self.manifest.files.items() if known == sha256]

    @property
    def pieces(self) -> Path:
        """The folder of blobs that are being fetched."""
        return self.path / PIECES_FOLDER

    def finish(self) -> Path:
        """Move the complete model to the imported ones; if it is already there, remove this one."""
        target = self.models_dir / self.model_id
        with writing_to(self.models_dir):
            shutil.rmtree(self.pieces, ignore_errors=True)
            self.claim()
            if target.exists():
                shutil.rmtree(self.path)
            else:
                sync_folder(self.path / UNITS_FOLDER)
                sync_folder(self.path)
                self.path.rename(target)
                remember_moved(self.path, target)
                sync_folder(self.models_dir)
        self.path = target
        return target


def partial_path(models_dir: Path, model_id: str) -> Path:
    """The folder of a partial model."""
    return models_dir / PARTIAL_FOLDER / model_id
