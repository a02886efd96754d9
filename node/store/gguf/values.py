"""The metadata of one architecture: keys that begin with its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from node.errors import UnsupportedModelError


class Values:
    """Typed access to a file's metadata; every error names the file and the key."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str, where: str) -> None:
        self.architecture = architecture
        self._metadata, self._where = metadata, where

    def get(self, key: str, default: Any = None) -> Any:
        value = self._metadata.get(f"{self.architecture}.{key}", default)
        return shortest(value) if isinstance(value, float) else value

    def integer(self, key: str) -> int:
        value = self.get(key)
        if type(value) is not int or value <= 0:
            raise self.refuse(f"its {key} is {value!r}")
        return value

    def refuse(self, reason: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"model {self._where} is not supported: {reason}; choose another file")


def shortest(value: float) -> float:
    """A float32 of the file as the shortest decimal number for it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
