"""Reads small JSON files from outside, with a size limit and with our own errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from node.errors import CorruptModelError, ModelNotFoundError

MAX_JSON_BYTES = 64 << 20
"""The index of a sharded 400-billion model is below 1 MiB, a `tokenizer_config.json` below 10 MiB."""


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a file that must not be larger than `limit_bytes`.

    Raises:
        ModelNotFoundError: the file does not exist or cannot be read.
        CorruptModelError: it is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as exc:
        raise ModelNotFoundError(
            f"{path} cannot be read: {exc.strerror}; name a folder that holds a Hugging Face checkpoint"
        ) from exc
    if len(content) > limit_bytes:
        raise CorruptModelError(f"{path} is larger than {limit_bytes} bytes; fetch the model again")
    return content


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises the errors of `read_bounded`, and CorruptModelError for anything else."""
    try:
        value = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as exc:
        raise CorruptModelError(f"{path} is not JSON: {exc}; fetch the model again") from exc
    if not isinstance(value, dict):
        raise CorruptModelError(f"{path} does not hold a JSON object; fetch the model again")
    return value
