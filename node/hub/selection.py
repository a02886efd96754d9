"""Which files of a repository a model needs: weights as safetensors, tokenizer, configuration. Never a pickle."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from node.errors import UnsupportedModelError
from node.store.hf.checkpoint import INDEX_FILE, SINGLE_FILE
from node.store.manifest import OPTIONAL_FILES

CONFIG_FILES = ("config.json", "tokenizer.json")


class HubFile(Struct, frozen=True):
    """One file of a repository."""

    name: str
    size_bytes: int
    sha256: str | None = None
    """Of large files alone."""


def small_files(files: Collection[HubFile], repo: str) -> list[HubFile]:
    """Everything but the weights, and the index of the weights where there is one.

    Raises:
        UnsupportedModelError: the repository holds no model of the kind that is imported.
    """
    present = {file.name: file for file in files}
    weights = [name for name in present if name.endswith(".safetensors")]
    if SINGLE_FILE not in present and INDEX_FILE not in present:
        others = sorted(name for name in present if name.endswith((".bin", ".gguf", ".pt", ".pth", ".msgpack")))
        instead = f"has {others[0]}" if others else "has no weights" if not weights else f"has {weights[0]}"
        raise UnsupportedModelError(
            f"{repo} {instead} and neither {SINGLE_FILE} nor {INDEX_FILE}: only safetensors are taken, because other "
            "formats can run code; choose a repository that has them"
        )
    missing = [name for name in CONFIG_FILES if name not in present]
    if missing:
        raise UnsupportedModelError(
            f"{repo} has no {missing[0]}: it is no model that can be imported; choose another"
        )
    wanted = (*CONFIG_FILES, *OPTIONAL_FILES, *(() if SINGLE_FILE in present else (INDEX_FILE,)))
    return [present[name] for name in wanted if name in present]


def weight_files(files: Collection[HubFile], shards: Collection[str] | None, repo: str) -> list[HubFile]:
    """The files with the weights.

    Args:
        shards: those that the index names; None where there is one file.
    """
    present = {file.name: file for file in files}
    wanted = [SINGLE_FILE] if shards is None else sorted(shards)
    missing = [name for name in wanted if name not in present]
    if missing or any("/" in name for name in wanted):
        raise UnsupportedModelError(f"the index of {repo} names {(missing or wanted)[0]}, which it does not have")
    return [present[name] for name in wanted]
