"""Turns a checkpoint into a model, completely or not at all.

Everything is written into a folder beside the models, synced, and renamed to its id at the end. A folder whose name
is an id is therefore complete. The folder of an interrupted import is recognised by its lock, which nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from node.errors import CorruptModelError
from node.json_file import read_bounded
from node.model.config import UnitKind
from node.model.named_tokens import template_source, tokenizer_config
from node.model.tokenizer import Tokenizer
from node.model.unit import UnitRef
from node.store.client_file import write_client_file
from node.store.files import sha256_file, sync_folder, write_synced, writing_to
from node.store.gguf.parts import is_gguf
from node.store.hf.checkpoint import open_checkpoint
from node.store.hf.layout import projections
from node.store.manifest import (
    CLIENT_FILE,
    MANIFEST_FILE,
    OPTIONAL_FILES,
    REQUIRED_FILES,
    UNITS_FOLDER,
    Manifest,
    model_id_of,
    unit_places,
)
from node.store.names import Names, check_name, fingerprint, locked
from node.store.partial import partial_path
from node.store.unit_file import write_unit
from node.store.weight_source import WeightSource
from protocol.linear.field import Floats

TEMPORARY_PREFIX = ".import-"
HELD_FILE = ".held"

BLOCK_WEIGHTS = 1 << 22
"""Number of weights that are widened and quantized together: a few copies of 16 MiB at a time."""
MAX_COPIED_BYTES = 256 << 20
"""Largest tokenizer file that is copied."""


Reduce = Callable[[Path, UnitRef], None]


class ImportProgress(Struct, frozen=True):
    """How far an import is."""

    done_units: int
    total_units: int
    unit: str
    """Name of the unit that was written last."""


class ImportedModel(Struct, frozen=True):
    """The result of an import."""

    model_id: str
    path: Path
    name: str | None
    already_present: bool
    """The same model was already here; only damaged files were replaced."""


def import_checkpoint(
    source: Path,
    models_dir: Path,
    name: str | None = None,
    progress: Callable[[ImportProgress], None] | None = None,
    reduce: Reduce | None = None,
) -> ImportedModel:
    """Imports a Hugging Face checkpoint folder, or a GGUF file: the same checkpoint gives the same bytes everywhere.

    Args:
        name: a name for the model, besides its id.
        progress: called after every unit; an exception from it ends the import and leaves nothing behind.
        reduce: called with the folder and every written unit; it may replace the unit with its check, and the model
            becomes a thin one.

    Raises:
        ModelNotFoundError, UnsupportedModelError, CorruptModelError: the checkpoint cannot be imported.
        ConfigError: the name is not legal, or the disk refuses.
    """
    if name is not None:
        check_name(name)
    checkpoint = _opened(source)
    seen = fingerprint(source)
    imported = import_weights(checkpoint, models_dir, name, progress, reduce)
    with writing_to(models_dir):
        Names(models_dir).add_source(source, seen, imported.model_id)
    return imported


def import_weights(
    checkpoint: WeightSource,
    models_dir: Path,
    name: str | None = None,
    progress: Callable[[ImportProgress], None] | None = None,
    reduce: Reduce | None = None,
) -> ImportedModel:
    """The same, for weights from any source; raises what `import_checkpoint` raises."""
    Tokenizer.from_folder(checkpoint.folder)
    _check_template(checkpoint.folder)
    with writing_to(models_dir):
        models_dir.mkdir(parents=True, exist_ok=True)
        remove_stale_imports(models_dir)
        with _temporary_folder(models_dir) as folder:
            model_id = _write_model(checkpoint, folder, progress, reduce)
            path = models_dir / model_id
            if reduce is not None and not (path / MANIFEST_FILE).exists():
                path = partial_path(models_dir, model_id)
                path.parent.mkdir(exist_ok=True)
            already_present = not _move_into_place(folder, path)
        if name is not None:
            Names(models_dir).add(name, model_id)
    return ImportedModel(model_id, path, name, already_present)


def _opened(source: Path) -> WeightSource:
    if not is_gguf(source):
        return open_checkpoint(source)
    from node.store.gguf.checkpoint import GgufCheckpoint  # most starts need none

    return GgufCheckpoint(source)


def remove_stale_imports(models_dir: Path) -> list[Path]:
    """Removes folders of interrupted imports, but not of running ones; returns what it removed."""
    removed = []
    with locked(models_dir):
        for folder in models_dir.glob(f"{TEMPORARY_PREFIX}*"):
            try:
                with (folder / HELD_FILE).open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # locked by a running import
            removed.append(folder)
    return removed


@contextmanager
def _temporary_folder(models_dir: Path) -> Iterator[Path]:
    """A temporary folder, locked while it is used and removed afterwards, unless it was renamed."""
    folder = models_dir / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    with locked(models_dir):  # else another import could consider it stale before we have locked it
        folder.mkdir()
        held = (folder / HELD_FILE).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    with held:
        try:
            (folder / UNITS_FOLDER).mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write_model(
    checkpoint: WeightSource,
    folder: Path,
    progress: Callable[[ImportProgress], None] | None,
    reduce: Reduce | None,
) -> str:
    """Writes all parts of a model, the manifest last; returns the model id."""
    places = unit_places(checkpoint.config)
    refs = []
    for layer, kind in places:
        refs.append(_write_unit(checkpoint, folder / UNITS_FOLDER, layer, kind))
        if reduce is not None:
            reduce(folder, refs[-1])
        if progress is not None:
            progress(ImportProgress(len(refs), len(places), refs[-1].name))
    write_client_file(folder / CLIENT_FILE, checkpoint)
    files = {CLIENT_FILE: sha256_file(folder / CLIENT_FILE)}
    for name in (*REQUIRED_FILES, *OPTIONAL_FILES):
        if name not in files and (checkpoint.folder / name).exists():
            write_synced(folder / name, read_bounded(checkpoint.folder / name, MAX_COPIED_BYTES))
            files[name] = sha256_file(folder / name)
    content = Manifest(checkpoint.config, tuple(refs), files).encode()
    write_synced(folder / MANIFEST_FILE, content)
    sync_folder(folder / UNITS_FOLDER)
    sync_folder(folder)
    return model_id_of(content)


def _write_unit(checkpoint: WeightSource, folder: Path, layer: int | None, kind: UnitKind) -> UnitRef:
    num_outputs, num_inputs = checkpoint.config.unit_shape(kind)
    if layer is None:
        parts = [(checkpoint.head, num_outputs)]
    else:
        named = projections(checkpoint.config, layer, kind)
        parts = [(f"{prefix}.weight", num_rows) for prefix, num_rows in named]
    step = max(1, BLOCK_WEIGHTS // num_inputs)
    sha256 = write_unit(folder, _blocks(checkpoint, parts, step))
    return UnitRef(layer, kind, num_outputs, num_inputs, sha256)


def _blocks(checkpoint: WeightSource, parts: list[tuple[str, int]], step: int) -> Iterator[Floats]:
    """The rows of several tensors, one tensor after the other, in blocks of at most `step` rows."""
    for tensor, num_rows in parts:
        for start in range(0, num_rows, step):
            yield checkpoint.rows(tensor, start, min(start + step, num_rows))


def _move_into_place(folder: Path, target: Path) -> bool:
    """Renames a complete model to its id. If it already exists, repairs damaged files and returns False."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        _mend(folder, target)
        return False
    (target / HELD_FILE).unlink()
    sync_folder(target.parent)
    return True


def _mend(folder: Path, target: Path) -> None:
    """Replaces every file of an existing model that differs from the one just written, each atomically."""
    for fresh in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != HELD_FILE):
        present = target / fresh.relative_to(folder)
        present.parent.mkdir(exist_ok=True)
        try:
            whole = sha256_file(present) == sha256_file(fresh)
        except CorruptModelError:
            whole = False
        if not whole:
            os.replace(fresh, present)
        sync_folder(present.parent)
    sync_folder(target)


def _check_template(source: Path) -> None:
    """Raises CorruptModelError if the chat template could not be used later."""
    if template_source(source, tokenizer_config(source)) is not None:
        from node.model.template import ChatTemplate  # jinja2: most starts need none

        ChatTemplate.from_folder(source)
