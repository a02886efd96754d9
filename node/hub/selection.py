"""Which files of a repository a model needs: a checkpoint in safetensors, or a GGUF file. Never a pickle."""

from __future__ import annotations

import re
from collections.abc import Collection

from msgspec import Struct

from node.errors import UnsupportedModelError
from node.store.hf.checkpoint import INDEX_FILE, SINGLE_FILE
from node.store.manifest import OPTIONAL_FILES

_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.IGNORECASE)
"""What the name of a part of a split file has in addition."""
CONFIG_FILES = ("config.json", "tokenizer.json")


class HubFile(Struct, frozen=True):
    """One file of a repository."""

    name: str
    size_bytes: int
    sha256: str | None = None
    """Known only for large files."""


def small_files(files: Collection[HubFile], repo: str) -> list[HubFile]:
    """All files but the weights, with the index of the weights if there is one.

    Raises:
        UnsupportedModelError: the repository does not hold a model that can be imported.
    """
    present = {file.name: file for file in files}
    weights = [name for name in present if name.endswith(".safetensors")]
    if SINGLE_FILE not in present and INDEX_FILE not in present:
        others = sorted(name for name in present if name.endswith((".bin", ".pt", ".pth", ".msgpack")))
        instead = f"has {others[0]}" if others else "has no weights" if not weights else f"has {weights[0]}"
        raise UnsupportedModelError(
            f"{repo} {instead} and neither {SINGLE_FILE} nor {INDEX_FILE}: only safetensors and GGUF are read, "
            "because other formats can run code; choose a repository that has them"
        )
    missing = [name for name in CONFIG_FILES if name not in present]
    if missing:
        raise UnsupportedModelError(f"{repo} has no {missing[0]}: it cannot be imported; choose another")
    wanted = (*CONFIG_FILES, *OPTIONAL_FILES, *(() if SINGLE_FILE in present else (INDEX_FILE,)))
    return [present[name] for name in wanted if name in present]


def weight_files(files: Collection[HubFile], shards: Collection[str] | None, repo: str) -> list[HubFile]:
    """The files with the weights.

    Args:
        shards: the files that the index names; None if there is one file.
    """
    present = {file.name: file for file in files}
    wanted = [SINGLE_FILE] if shards is None else sorted(shards)
    missing = [name for name in wanted if name not in present]
    if missing or any("/" in name for name in wanted):
        raise UnsupportedModelError(f"the index of {repo} names {(missing or wanted)[0]}, which it does not have")
    return [present[name] for name in wanted]


def gguf_files(files: Collection[HubFile], wanted: str | None, repo: str) -> list[HubFile] | None:
    """The parts of one GGUF model, in order; None if the repository is used as a checkpoint.

    Args:
        wanted: a file's name, or the part of it that gives the quantization.

    Raises:
        UnsupportedModelError: there is none, or there are several and `wanted` does not say which.
    """
    found = sorted((file for file in files if file.name.lower().endswith(".gguf")), key=lambda file: file.name)
    if wanted is None and (not found or any(file.name in (SINGLE_FILE, INDEX_FILE) for file in files)):
        return None
    models: dict[str, list[HubFile]] = {}
    for file in found:
        models.setdefault(_PART.sub("", file.name), []).append(file)
    if wanted is not None:
        chosen = {name: parts for name, parts in models.items() if _means(wanted, name, parts)}
    else:
        chosen = models
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    there = ", ".join(
        f"{name} ({sum(part.size_bytes for part in parts) / 2**20:.0f} MiB)" for name, parts in models.items()
    )
    what = f"no one file that {wanted!r} means" if wanted is not None else "several GGUF models"
    raise UnsupportedModelError(f"{repo} has {what}: choose one as {repo}:FILE of {there or 'none'}")


def _means(wanted: str, name: str, parts: Collection[HubFile]) -> bool:
    stem = name.lower().removesuffix(".gguf")
    return wanted in {name, *(part.name for part in parts)} or stem.endswith(
        (f"-{wanted.lower()}", f".{wanted.lower()}")
    )
