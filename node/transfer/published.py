"""Which models of this device its swarm is asked to hold.

<data dir>/published.json   their ids, the newest first
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from node.errors import ConfigError, KekahydeError
from node.json_file import read_bounded
from node.store.files import replace_private
from node.store.names import is_model_id
from protocol.membership.records import MAX_PUBLISHED_MODELS

MAX_FILE_BYTES = 1 << 16


class Published(Struct, frozen=True):
    """One model."""

    model_id: str
    by_hand: bool
    """Whether the user asked for it by name. What an import or a pull publishes is not told to an open swarm."""


class PublishedModels:
    """The models that the user of this device put on the swarm. Thread-safe.

    Args:
        path: None: only in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises ConfigError for a damaged file: what a swarm was not to be told must not be forgotten."""
        self._path = path
        self._lock = threading.Lock()
        self._models = [] if path is None or not path.exists() else _read(path)

    def all(self) -> list[Published]:
        """The newest first."""
        with self._lock:
            return list(self._models)

    def ids(self, in_open_swarm: bool) -> list[str]:
        """Of the models that the swarm is told, the newest first."""
        return [model.model_id for model in self.all() if model.by_hand or not in_open_swarm]

    def add(self, model_id: str, by_hand: bool) -> list[str]:
        """Publish a model; returns the ids of those that are not published any longer, because a record names only so
        many. It is on the disk when this returns. Raises ConfigError."""
        with self._lock:
            others = [model for model in self._models if model.model_id != model_id]
            known = next((model for model in self._models if model.model_id == model_id), None)
            added = Published(model_id, by_hand or (known is not None and known.by_hand))
            self._store([added, *others[: MAX_PUBLISHED_MODELS - 1]])
            return [model.model_id for model in others[MAX_PUBLISHED_MODELS - 1 :]]

    def remove(self, model_id: str) -> bool:
        """Publish a model no longer; whether it was published. Raises ConfigError."""
        with self._lock:
            left = [model for model in self._models if model.model_id != model_id]
            was_published = len(left) < len(self._models)
            if was_published:
                self._store(left)
            return was_published

    def _store(self, models: list[Published]) -> None:
        if self._path is not None:
            replace_private(self._path, json.dumps({"models": [asdict(model) for model in models]}).encode())
        self._models = models


def _read(path: Path) -> list[Published]:
    try:
        entries = json.loads(read_bounded(path, MAX_FILE_BYTES))["models"][:MAX_PUBLISHED_MODELS]
        models = [Published(str(entry["model_id"]), entry["by_hand"] is True) for entry in entries]
        if not all(is_model_id(model.model_id) for model in models):
            raise ValueError("a model id has 64 hexadecimal digits")
    except (KekahydeError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ConfigError(f"{path} is damaged ({exc}): delete it, then publish models again") from exc
    return models
