"""The guards of a node in their places, and when it has seen each peer: values, and their file.

<data dir>/guards.json   mode 0600: it names the peers that get halves of this node's rows
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field, to_builtins

from node.errors import ConfigError
from node.store.files import replace_private
from protocol.identity import PeerId

Side = Literal["pad", "share"]
SIDES: tuple[Side, Side] = ("pad", "share")

FILE_VERSION = 1
MAX_FILE_BYTES = 4 << 20
MAX_MODELS = 64
MAX_LANES = 64
MAX_SEEN = 4096
MAX_CAUGHT = 4096
"""Limited, so that somebody who lies under ever new keys cannot make the file too large to read."""


class Guard(Struct, frozen=True):
    """A peer in its place. Times are Unix seconds."""

    peer_id: PeerId
    since: float
    until: float
    """When it is replaced in any case. The time is drawn when it is chosen, so that nobody can predict it."""
    down_s: float = 0.0
    """How long it has been away, counting only times when this node was up; 0 while it is connected."""


class LanePlaces(Struct, frozen=True):
    """The two places of a lane; None is an empty place."""

    pad: Guard | None = None
    share: Guard | None = None

    def holder(self, side: Side) -> Guard | None:
        return self.pad if side == "pad" else self.share


class GuardBook(Struct, frozen=True):
    """All that a node remembers about guards; the rules turn an old book into a new one."""

    born: float
    """When this node began to remember."""
    looked: float
    """When it last checked which peers are connected."""
    lanes: dict[str, tuple[LanePlaces, ...]] = field(default_factory=dict)
    """By model id."""
    seen: dict[PeerId, tuple[float, float]] = field(default_factory=dict)
    """When each peer was first and last seen."""
    caught: frozenset[PeerId] = frozenset()
    """Peers that returned a wrong number; they never become guards again."""

    def roles(self) -> dict[PeerId, Side]:
        """The side of every guard, for all models."""
        return {
            guard.peer_id: side
            for lanes in self.lanes.values()
            for places in lanes
            for side in SIDES
            if (guard := places.holder(side)) is not None
        }


def encode_book(book: GuardBook) -> str:
    """The text of the file."""
    value: dict[str, Any] = to_builtins(book) | {"version": FILE_VERSION, "caught": sorted(book.caught)}
    return json.dumps(value, indent=1)


def decode_book(text: str) -> GuardBook:
    """Reads the text of the file; raises ValueError for anything but a book of this version."""
    try:
        value = json.loads(text)
        if value["version"] != FILE_VERSION:
            raise ValueError(f"it is of version {value['version']!r}, this program reads {FILE_VERSION}")
        lanes = {
            str(model): tuple(LanePlaces(*(_read_guard(places[side]) for side in SIDES)) for places in of_model)
            for model, of_model in value["lanes"].items()
        }
        if len(lanes) > MAX_MODELS or any(len(of_model) > MAX_LANES for of_model in lanes.values()):
            raise ValueError("it has too many lanes")
        seen = {PeerId(peer): (float(first), float(last)) for peer, (first, last) in value["seen"].items()}
        caught = frozenset(PeerId(str(peer)) for peer in value["caught"])
        return GuardBook(float(value["born"]), float(value["looked"]), lanes, seen, caught)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise ValueError(f"a field is missing or invalid ({exc})") from exc


def read_book(path: Path) -> GuardBook | None:
    """The book on disk; None if there is none. Raises ConfigError for a damaged file.

    A damaged book is never replaced silently: otherwise whoever can damage it could choose the guards.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError("it is too large")
        return decode_book(content.decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"cannot use {path}: {exc}; restore it, or move it away to choose new guards") from exc


def write_book(path: Path, book: GuardBook) -> None:
    """Writes the book, completely or not at all, mode 0600."""
    replace_private(path, encode_book(book).encode())


def _read_guard(value: Any) -> Guard | None:
    if value is None:
        return None
    return Guard(PeerId(str(value["peer_id"])), float(value["since"]), float(value["until"]), float(value["down_s"]))
