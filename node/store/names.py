"""Names of models, and which folders were already imported: one small JSON file beside the models.

    {"names": {name: model id}, "sources": {absolute path: {"fingerprint": text, "model_id": model id}}}

Each change rewrites the whole file, atomically and under a lock. The models themselves never depend on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.errors import ConfigError, CorruptModelError, ModelNotFoundError
from node.json_file import read_json_object
from node.store.files import replace_atomically
from node.store.gguf.parts import is_gguf, parts_of

NAMES_FILE = "names.json"
LOCK_FILE = ".lock"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MODEL_ID = re.compile(r"[0-9a-f]{64}")


def check_name(name: str) -> str:
    """Returns `name` if it is legal; raises ConfigError if it is not."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a model name; use lower-case letters, digits, '.', '_' and '-', at most 64 of them"
        )
    return name


def name_from_folder(folder: Path) -> str:
    """A legal name made from the name of a folder, or of a GGUF file without its ending."""
    path = folder.resolve()
    return name_from_text(path.stem if is_gguf(path) else path.name)


def name_from_text(text: str) -> str:
    """A legal name made from any text."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64]
    return name if _NAME.fullmatch(name) else "model"


def is_model_id(text: str) -> bool:
    """Whether a text has the form of a whole model id."""
    return _MODEL_ID.fullmatch(text) is not None


class Names:
    """The registry of names in one folder of models."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._path = models_dir / NAMES_FILE

    def all(self) -> dict[str, str]:
        """Model id of every name.

        Raises:
            CorruptModelError: the registry cannot be read.
        """
        return dict(self._read()["names"])

    def imported_from(self, source: Path) -> str | None:
        """The id under which a folder was imported, if none of its files has changed since."""
        entry = self._read()["sources"].get(str(source.resolve()))
        if not isinstance(entry, dict) or entry.get("fingerprint") != fingerprint(source):
            return None
        model_id = entry.get("model_id")
        return model_id if isinstance(model_id, str) and is_model_id(model_id) else None

    def is_from(self, source: Path, model_id: str) -> bool:
        """Whether the last import of a folder gave this model, whatever the folder holds now."""
        entry = self._read()["sources"].get(str(source.resolve()))
        return isinstance(entry, dict) and entry.get("model_id") == model_id

    def add(self, name: str, model_id: str) -> None:
        """Gives a model a name; an existing name moves to this model."""
        check_name(name)
        self._change(lambda content: content["names"].__setitem__(name, model_id))

    def add_source(self, source: Path, seen: str, model_id: str) -> None:
        """Remembers that a folder, whose fingerprint was `seen`, was imported."""
        entry = {"fingerprint": seen, "model_id": model_id}
        self._change(lambda content: content["sources"].__setitem__(str(source.resolve()), entry))

    def forget(self, model_id: str) -> None:
        """Removes all names of a model, and what it was imported from."""

        def change(content: dict[str, Any]) -> None:
            content["names"] = {name: other for name, other in content["names"].items() if other != model_id}
            content["sources"] = {
                source: entry for source, entry in content["sources"].items() if entry.get("model_id") != model_id
            }

        self._change(change)

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        with locked(self._models_dir):
            content = self._read()
            change(content)
            replace_atomically(self._path, json.dumps(content, indent=1, sort_keys=True).encode())

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {"names": {}, "sources": {}}
        try:
            content = read_json_object(self._path)
            names, sources = content["names"], content["sources"]
            if not all(_NAME.fullmatch(name) and is_model_id(value) for name, value in names.items()):
                raise ValueError("a name or an id is not valid")
            return {"names": dict(names), "sources": dict(sources)}
        except (CorruptModelError, KeyError, TypeError, ValueError, AttributeError) as exc:
            raise CorruptModelError(
                f"{self._path} is not readable as a list of names; remove it and import the models again"
            ) from exc


@contextmanager
def locked(models_dir: Path) -> Iterator[None]:
    """Holds the lock for changes to the names, across processes."""
    with (models_dir / LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint(folder: Path) -> str:
    """A hash over names, sizes and times of a folder's files, or of one file. It is cheap, and changes when a file is
    rewritten."""
    try:
        files = folder.iterdir() if folder.is_dir() else parts_of(folder)
        entries = sorted((path.name, path.stat()) for path in files if path.is_file())
    except OSError as exc:
        raise ModelNotFoundError(f"{folder} cannot be read: {exc.strerror}; name a folder with a model") from exc
    text = json.dumps([[name, status.st_size, status.st_mtime_ns] for name, status in entries])
    return hashlib.sha256(text.encode()).hexdigest()
