"""All models in one data directory, and how a user's text is resolved to one of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from node.errors import ConfigError, ModelError, ModelNotFoundError
from node.store.files import writing_to
from node.store.gguf.parts import is_gguf
from node.store.importer import ImportedModel, ImportProgress, Reduce, import_checkpoint
from node.store.manifest import MANIFEST_FILE
from node.store.names import Names, check_name, is_model_id, name_from_folder
from node.store.partial import PARTIAL_FOLDER, PartialModel, partial_path
from node.store.stored import StoredModel
from node.store.thin import ThinModel, thin_path

BUILT_IN_NAME = "story"
BUILT_IN_FOLDER = Path(__file__).parent.parent / "models" / BUILT_IN_NAME
"""The model that ships inside the package and is imported when it is first asked for."""

MIN_PREFIX = 8
"""So many characters at the beginning of an id are enough to name it."""

_ID_PREFIX = re.compile(f"[0-9a-f]{{{MIN_PREFIX},64}}")


class ModelSummary(Struct, frozen=True):
    """One line of a listing."""

    model_id: str
    names: tuple[str, ...]
    model_type: str
    num_layers: int
    context_length: int
    num_weights: int
    """Weights in units: what peers compute, and about the bytes that they hold."""
    chat: bool
    """Whether it has a chat template; without one it continues text."""
    problem: str | None
    """Why the model cannot be used; None if it can."""
    weights_bytes: int = 0
    """Size of all units."""
    held_bytes: int = 0
    """Size of the units whose weights are here."""
    checks_bytes: int = 0
    """Size of what is kept of the others."""
    disk_bytes: int = 0
    """Size of all of its files."""

    @property
    def is_whole(self) -> bool:
        """Whether it can be used, and no weights are missing."""
        return self.problem is None and self.held_bytes >= self.weights_bytes


class PartSummary(Struct, frozen=True):
    """A model of which only some units are here: they are served to others, or being fetched."""

    model_id: str
    model_type: str
    num_layers: int
    weights_bytes: int
    held_bytes: int
    disk_bytes: int


class Library:
    """The models in one folder.

    Args:
        models_dir: created when something is imported.
        progress: called during imports, also those that `resolve` starts.
        reduce: what an import does with every unit that it has written, to make thin models; None: whole ones.
    """

    def __init__(
        self,
        models_dir: Path,
        progress: Callable[[ImportProgress], None] | None = None,
        reduce: Reduce | None = None,
    ) -> None:
        self.models_dir = models_dir
        self._progress = progress
        self._reduce = reduce
        self._names = Names(models_dir)
        self._open: dict[str, StoredModel] = {}
        self._chats: dict[str, bool] = {}

    def resolve(self, reference: str | Path) -> StoredModel:
        """The model that a name, an id, the beginning of an id (8 characters or more) or a checkpoint's path means.

        A path is imported, once for an unchanged folder; so is the built-in model.

        Raises:
            ModelNotFoundError: no model has this name; the text lists the names.
            ModelError: the model, or the checkpoint to be imported, cannot be used.
            ConfigError: the disk refuses.
        """
        text = os.fspath(reference)
        names = self._names.all()
        if text not in names and text.lower() in names and not Path(text).exists():
            text = text.lower()  # names are lower case
        if text in names and not (text == BUILT_IN_NAME and self._import_again(names[text])):
            return self.open(names[text], text)
        if text == BUILT_IN_NAME and BUILT_IN_FOLDER.is_dir():
            return self._resolve_path(BUILT_IN_FOLDER, BUILT_IN_NAME)
        if _ID_PREFIX.fullmatch(text) and (matches := self._matching_ids(text)):
            return self._open_match(text, matches)
        if text and Path(text).exists():
            return self._resolve_path(Path(text), None)
        built_in = {BUILT_IN_NAME} if BUILT_IN_FOLDER.is_dir() else set()
        known = ", ".join(sorted({*names, *built_in})) or "none"
        raise ModelNotFoundError(f"no model is called {text!r}; the models are: {known}; import another one")

    def open(self, model_id: str, name: str | None = None) -> StoredModel:
        """The model with this whole id, opened once."""
        model = self._open.get(model_id)
        if model is None:
            name = name or next((known for known, other in self._names.all().items() if other == model_id), None)
            thin = None if self._is_whole(model_id) else thin_path(self.models_dir, model_id)
            opened = StoredModel(self.models_dir / model_id, name) if thin is None else ThinModel(thin, name)
            model = self._open[model_id] = opened
        return model

    def has(self, model_id: str) -> bool:
        """Whether a model is here, whole or thin."""
        return self._is_whole(model_id) or self._thin(model_id) is not None

    def _is_whole(self, model_id: str) -> bool:
        return (self.models_dir / model_id / MANIFEST_FILE).exists()

    def _thin(self, model_id: str) -> ThinModel | None:
        """A thin model, judged by its files without reading them; None if it is not complete."""
        path = thin_path(self.models_dir, model_id)
        try:
            return None if path is None else ThinModel(path, verify=False)
        except ModelError:
            return None

    def import_folder(self, source: Path, name: str | None = None) -> ImportedModel:
        """Imports a checkpoint under `name`, or under one made from the name of its folder or file."""
        if name is None:
            proposed = name_from_folder(source)
            name = proposed if proposed not in {*self._names.all(), BUILT_IN_NAME} else None
        if name == BUILT_IN_NAME and source.resolve() != BUILT_IN_FOLDER.resolve():
            raise ConfigError(f"the name {BUILT_IN_NAME} is that of the built-in model; give another with --name")
        imported = import_checkpoint(
            source, self.models_dir, check_name(name) if name else None, self._progress, self._reduce
        )
        self._open.pop(imported.model_id, None)
        return imported

    def list(self) -> Sequence[ModelSummary]:
        """Every model of the folder, by name; one that cannot be used says why."""
        names = self._names.all()
        listed = (self._summary(model_id, names) for model_id in self._model_ids())
        found = [summary for summary in listed if summary is not None]
        return sorted(found, key=lambda summary: (summary.names or ("~",), summary.model_id))

    def parts(self) -> Sequence[PartSummary]:
        """Every model of the folder of which only a part is here, and that cannot answer."""
        found = []
        for model_id in self._model_ids():
            part = None if self.has(model_id) else PartialModel.find(self.models_dir, model_id)
            if part is not None:
                sizes = [ref.num_bytes for ref in part.manifest.units]
                held = sum(ref.num_bytes for ref in part.manifest.units if part.has_file_of(ref))
                config = part.manifest.config
                found.append(
                    PartSummary(
                        model_id, config.model_type, config.num_layers, sum(sizes), held, self.disk_bytes(model_id)
                    )
                )
        return found

    def add_name(self, name: str, model_id: str) -> None:
        """Give a model one more name, unless another model has it."""
        if name not in self.names():
            self._add_name(check_name(name), model_id)

    def identify(self, reference: str) -> str:
        """The id of a model, whole or in part, by its name or the beginning of its id; nothing is imported.

        Raises:
            ModelNotFoundError: there is none, or the beginning is that of several.
        """
        named = self._names.all().get(reference)
        found = [named] if named else [one for one in self._model_ids() if one.startswith(reference)]
        if len(found) != 1 or (named is None and len(reference) < MIN_PREFIX):
            known = ", ".join(sorted(self._names.all())) or "none"
            raise ModelNotFoundError(f"no model here is called {reference!r}; the models are: {known}")
        return found[0]

    def disk_bytes(self, model_id: str) -> int:
        """Size of all files of a model."""
        files = (path for folder in self._folders(model_id) for path in folder.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def remove(self, model_id: str) -> int:
        """Deletes a model: its names first, then its folders with the secret checks of a thin one; returns the bytes
        that it took. What a crash leaves behind has no name and no manifest."""
        size = self.disk_bytes(model_id)
        with writing_to(self.models_dir):
            self._names.forget(model_id)
            for folder in self._folders(model_id):
                (folder / MANIFEST_FILE).unlink(missing_ok=True)
                shutil.rmtree(folder)
        self._open.pop(model_id, None)
        return size

    def _folders(self, model_id: str) -> Sequence[Path]:
        return [
            path for path in (self.models_dir / model_id, partial_path(self.models_dir, model_id)) if path.is_dir()
        ]

    def names(self) -> set[str]:
        """Names that are taken, that of the built-in model among them."""
        return {*self._names.all(), BUILT_IN_NAME}

    def named(self) -> dict[str, str]:
        """Model id of every name."""
        return self._names.all()

    def _summary(self, model_id: str, names: dict[str, str]) -> ModelSummary | None:
        """A line of the listing; None for an incomplete thin model."""
        is_whole = (self.models_dir / model_id).is_dir()
        thin = None if is_whole else self._thin(model_id)
        if not is_whole and thin is None:
            return None
        own = tuple(sorted(name for name, other in names.items() if other == model_id))
        try:
            model = thin or StoredModel(self.models_dir / model_id, verify=False)
            if model_id not in self._chats:  # a folder is named by its content: it never changes
                self._chats[model_id] = model.chat_template is not None
        except ModelError as exc:
            return ModelSummary(model_id, own, "?", 0, 0, 0, False, str(exc))
        config = model.config
        return ModelSummary(
            model_id,
            own,
            config.model_type,
            config.num_layers,
            config.context_length,
            sum(ref.num_outputs * ref.num_inputs for ref in model.units),
            self._chats[model_id],
            None,
            sum(ref.num_bytes for ref in model.units),
            model.held_bytes,
            model.checks_bytes,
            self.disk_bytes(model_id),
        )

    def _model_ids(self) -> Sequence[str]:
        """Of folders that may hold a model; those of peers' models may hold a part alone."""
        if not self.models_dir.is_dir():
            return []
        whole = {path.name for path in self.models_dir.iterdir() if is_model_id(path.name)}
        partial = self.models_dir / PARTIAL_FOLDER
        begun = {path.name for path in partial.iterdir() if is_model_id(path.name)} if partial.is_dir() else set()
        return sorted(whole | begun)

    def _matching_ids(self, prefix: str) -> Sequence[str]:
        return [model_id for model_id in self._model_ids() if model_id.startswith(prefix) and self.has(model_id)]

    def _open_match(self, prefix: str, matches: Sequence[str]) -> StoredModel:
        if len(matches) > 1:
            raise ModelNotFoundError(f"{len(matches)} model ids begin with {prefix}; type more of it")
        return self.open(matches[0])

    def _resolve_path(self, folder: Path, name: str | None) -> StoredModel:
        """The model of a checkpoint folder; it is imported if it was not yet, or if the folder has changed."""
        if folder.is_dir() and (folder / MANIFEST_FILE).exists() and is_model_id(folder.resolve().name):
            return StoredModel(folder.resolve())
        model_id = self._names.imported_from(folder) if folder.is_dir() or is_gguf(folder) else None
        if model_id is None or not (self.has(model_id) if self._reduce else self._is_whole(model_id)):
            model_id = self.import_folder(folder, name).model_id
        elif name is not None:
            self._add_name(name, model_id)
        return self.open(model_id, name)

    def _add_name(self, name: str, model_id: str) -> None:
        with writing_to(self.models_dir):
            self._names.add(name, model_id)

    def _import_again(self, model_id: str) -> bool:
        """Whether `story` means another model than the built-in one, or a thin one where a whole one is wanted."""
        if self._reduce is None and not self._is_whole(model_id) and BUILT_IN_FOLDER.is_dir():
            return True
        if not BUILT_IN_FOLDER.is_dir() or not self._names.is_from(BUILT_IN_FOLDER, model_id):
            return False
        return self._names.imported_from(BUILT_IN_FOLDER) != model_id
