"""Lets this node hold parts of the models that members of its swarm published.

<data dir>/replicas.json   which ones, so that they are served again after a restart of all devices at once
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from node.errors import KekahydeError
from node.json_file import read_bounded
from node.serving.hosting import HostedModels
from node.serving.lending import Lending
from node.store.files import replace_private
from node.store.names import is_model_id
from node.transfer.holders import layer_sizes
from node.transfer.replicas import Replica, allot
from node.transport.registry import ConnectedPeer, PeerRegistry
from protocol.identity import PeerId
from protocol.limits import MAX_HOSTED_MODELS
from protocol.membership.records import MAX_PUBLISHED_NAME_CHARACTERS

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 16
MAX_KNOWN = 256
"""Most models that are remembered; far more than can be held."""
KEPT_UNASKED_S = 30 * 24 * 3600.0
"""A model that no connected member publishes is dropped after this time without a request."""
ASKED_STORED_EVERY_S = 3600.0
"""How exactly the disk knows when a model was asked for."""


class Target(Struct, frozen=True):
    """What to hold now."""

    bytes_of: dict[bytes, int]
    """Memory by model."""
    withdrawn: frozenset[bytes] = frozenset()
    """Models that their publishers took back."""


class Replicator:
    """Remembers what members published, and says what this node holds of it. `look` is called by one thread.

    Args:
        path: None: only in memory.
        is_on: whether this node takes models that others published.
    """

    def __init__(
        self,
        path: Path | None,
        hosted: HostedModels,
        registry: PeerRegistry,
        lending: Lending,
        is_on: Callable[[], bool],
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._unix_s, self._is_on = path, unix_s, is_on
        self._hosted = hosted
        self._registry = registry
        self._lending = lending
        self._lock = threading.Lock()
        self._known = {} if path is None or not path.exists() else _read(path)
        self._stored = dict(self._known)

    def look(self, memory_bytes: int, excluded: Collection[bytes]) -> Target:
        """What to hold now.

        Args:
            memory_bytes: for all of it together.
            excluded: models that this node holds for other reasons.
        """
        now = self._unix_s()
        published = published_by(self._registry.peers())
        with self._lock:
            after, withdrawn = self._news(self._known, published, now)
            self._known = after
        if self._differs(after):
            self._store(after)
        wanted = [self._sized(model) for model in after.values() if model.model_id not in excluded]
        room = MAX_HOSTED_MODELS - len(set(self._hosted.model_ids) - set(after))
        shares = allot(wanted, memory_bytes, max(0, room)) if self._is_on() else {}
        return Target(shares, withdrawn)

    def _news(
        self, known: Mapping[bytes, Replica], published: Mapping[bytes, Replica], now: float
    ) -> tuple[dict[bytes, Replica], frozenset[bytes]]:
        """What is known now, and what was taken back. A model belongs to the first who published it, as far as this
        node knows: nobody else can take it back, or name it."""
        asked = dict[bytes, float]()
        for borrower in self._lending.borrowers():
            asked[borrower.model_id] = max(borrower.last_unix_s, asked.get(borrower.model_id, 0.0))
        silent = {peer.peer_id for peer in self._registry.peers() if peer.published is not None}
        after, withdrawn = dict[bytes, Replica](), set[bytes]()
        for model_id, heard in (dict(published) | dict(known)).items():
            is_published = model_id in published
            first = now if model_id not in known else heard.asked_unix_s
            model = replace(heard, asked_unix_s=max(first, asked.get(model_id, 0.0)))
            if not is_published and model.publisher in silent:
                withdrawn.add(model_id)
            elif is_published or now - model.asked_unix_s <= KEPT_UNASKED_S:
                after[model_id] = model
        # What is known stays, its publisher here or not: others that come later push nothing out.
        ranked = sorted(
            after.values(),
            key=lambda model: (model.model_id in known, model.model_id in published, model.asked_unix_s),
        )
        return {model.model_id: model for model in ranked[-MAX_KNOWN:]}, frozenset(withdrawn)

    def _sized(self, model: Replica) -> Replica:
        manifest = self._hosted.manifest(model.model_id)
        if manifest is None:
            return model
        sizes = layer_sizes(manifest)
        return replace(model, size_bytes=sum(sizes), layer_bytes=min(size for size in sizes if size))

    def names(self) -> dict[bytes, tuple[str, PeerId]]:
        """What models are called, and by whom."""
        with self._lock:
            return {model.model_id: (model.name, model.publisher) for model in self._known.values() if model.name}

    def close(self) -> None:
        """Keep what is known."""
        with self._lock:
            known = self._known
        if known != self._stored:
            self._store(known)

    def _differs(self, known: Mapping[bytes, Replica]) -> bool:
        stored = self._stored
        return known.keys() != stored.keys() or any(
            model.asked_unix_s - stored[model_id].asked_unix_s > ASKED_STORED_EVERY_S
            for model_id, model in known.items()
        )

    def _store(self, known: Mapping[bytes, Replica]) -> None:
        self._stored = dict(known)
        if self._path is None:
            return
        entries = [
            {
                "model_id": model.model_id.hex(),
                "name": model.name,
                "publisher": model.publisher,
                "asked_unix_s": model.asked_unix_s,
            }
            for model in known.values()
        ]
        try:
            replace_private(self._path, json.dumps({"replicas": entries}).encode())
        except KekahydeError as exc:  # a full disk must not end the serving of what is here
            log.warning("which models are replicated could not be stored: %s", exc)


def published_by(peers: Collection[ConnectedPeer]) -> dict[bytes, Replica]:
    """Every model that connected peers publish; of several publishers the first PeerID counts."""
    found = dict[bytes, Replica]()
    for peer in sorted(peers, key=lambda peer: peer.peer_id):
        for model in peer.published or ():
            found.setdefault(model.model_id, Replica(model.model_id, model.name, peer.peer_id, 0.0))
    return found


def names_of_replicas(path: Path) -> dict[str, str]:
    """What models of others are called, by id."""
    known = _read(path) if path.exists() else {}
    return {model_id.hex(): model.name for model_id, model in known.items()}


def _read(path: Path) -> dict[bytes, Replica]:
    """What was known; nothing where the file is damaged: peers say it again."""
    try:
        replicas = {}
        for entry in json.loads(read_bounded(path, MAX_FILE_BYTES))["replicas"][:MAX_KNOWN]:
            if not is_model_id(entry["model_id"]):
                raise ValueError("a model id has 64 hexadecimal digits")
            model_id = bytes.fromhex(entry["model_id"])
            name = str(entry["name"])[:MAX_PUBLISHED_NAME_CHARACTERS]
            replicas[model_id] = Replica(
                model_id, name, PeerId(str(entry["publisher"])), float(entry["asked_unix_s"])
            )
    except (KekahydeError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        log.warning("%s is damaged (%s) and is written anew", path, exc)
        return {}
    return replicas
