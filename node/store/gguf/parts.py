"""The files of a GGUF model."""

from __future__ import annotations

import re
from pathlib import Path

from node.errors import ModelNotFoundError

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MAX_PARTS = 1000


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file."""
    return path.suffix.lower() == ".gguf"


def parts_of(path: Path) -> list[Path]:
    """All files of a model, given any one of them. Raises ModelNotFoundError if one is missing."""
    matched = _PART.fullmatch(path.name)
    count = int(matched[3]) if matched else 1
    if matched is None or not 1 <= count <= MAX_PARTS:
        paths = [path]
    else:
        paths = [path.with_name(f"{matched[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    for part in paths:
        if not part.is_file():
            raise ModelNotFoundError(f"{part} is missing; fetch the model again")
    return paths
