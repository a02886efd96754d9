"""The models that requests may name: those of the library and those that the node serves. Never a path."""

from __future__ import annotations

import threading
import time

from msgspec import Struct

from node.engine.drafts import check_draft
from node.errors import KekahydeError, ModelNotFoundError
from node.node import Node
from node.store.library import Library, ModelSummary
from node.store.stored import StoredModel

LISTING_KEPT_S = 2.0
"""A listing reads every manifest, so interfaces that ask four times a second get the last one."""
RELISTED_S = 0.1
"""For a name that is not in the last listing, the listing is made again if it is older than this."""


class ListedModel(Struct, frozen=True):
    """One model, with a name that requests may use."""

    name: str
    summary: ModelSummary


class Models:
    """The models of a node. Thread-safe; every method may read the disk."""

    def __init__(self, node: Node, library: Library, default: str | None = None, draft: str | None = None) -> None:
        self._node = node
        self._draft = draft
        self._library = library
        self._default = default
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        """Held while a model is opened; the first time this reads all of its files."""
        self._listing: list[ModelSummary] = []
        self._listed_at: float | None = None

    @property
    def default(self) -> StoredModel:
        """The model with which the node was started; else the first that it serves."""
        for model in self._node.hosted.models:
            if self._default in (None, model.model_id):
                return model
        if self._default is not None and self._library.has(self._default):
            with self._opening:
                return self._library.open(self._default)
        if self._node.hosted.models:
            return self._node.hosted.models[0]
        if self._default is not None:
            raise ModelNotFoundError(f"model {self._default[:16]} is not complete yet: see the list of transfers")
        raise ModelNotFoundError("this node has no model: give it one with --model")

    @property
    def default_name(self) -> str:
        """The name of the model with which the node was started, if it is here; else empty."""
        return next((one.name for one in self.usable() if one.summary.model_id == self._default), "")

    def resolve(self, name: str | None) -> StoredModel:
        """The model with this name or id; the default one for None.

        Raises:
            ModelNotFoundError: no model has this name; the text lists the names.
            ModelError: it cannot be used.
        """
        if not name:
            return self.default
        for model in self._node.hosted.models:
            if name in (model.name, model.model_id):
                return model
        with self._lock:
            known = self._knows(name) or self._knows(name, RELISTED_S)  # it may have come a moment ago
            if not known:
                names = ", ".join(sorted(listed.name for listed in self._usable())) or "none"
                raise ModelNotFoundError(f"no model is called {name[:128]!r}; the models are: {names}")
        with self._opening:
            return self._library.resolve(name)

    def draft_for(self, model: StoredModel) -> StoredModel | None:
        """The draft model with which the node was started, if it can guess for this one."""
        if self._draft in (None, model.model_id):
            return None
        try:
            draft = self.resolve(self._draft)
            check_draft(draft, model)
        except KekahydeError:  # it is another vocabulary's, or not usable any more: nobody asked for it by name
            return None
        return draft

    def _knows(self, name: str, kept_s: float = LISTING_KEPT_S) -> bool:
        return any(name in (*summary.names, summary.model_id) for summary in self._summaries(kept_s))

    def usable(self) -> list[ListedModel]:
        """Every usable model, once for each of its names."""
        with self._lock:
            return self._usable()

    def _usable(self) -> list[ListedModel]:
        usable = [summary for summary in self._summaries() if summary.problem is None]
        return [ListedModel(name, summary) for summary in usable for name in summary.names or (summary.model_id,)]

    def _summaries(self, kept_s: float = LISTING_KEPT_S) -> list[ModelSummary]:
        now = time.monotonic()
        if self._listed_at is None or now - self._listed_at > kept_s:
            self._listing, self._listed_at = list(self._library.list()), now
        return self._listing
