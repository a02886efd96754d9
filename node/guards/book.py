"""The guards of a node in their places, and whom it has seen since when: values, and their file.

<data dir>/guards.json   mode 0600: it says whom this node trusts with halves of its rows
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
"""Whoever lies under ever new keys must not make the file one that is too large to be read."""


class Guard(Struct, frozen=True):
    """A peer in its place. Times are Unix seconds."""

    peer_id: PeerId
    since: float
    until: float
    """When it is replaced whatever it did: drawn when it was chosen, so that nobody can tell."""
    down_s: float = 0.0
    """For how long it has been away, as far as this node was there to see; 0 while it is up."""


class LanePlaces(Struct, frozen=True):
    """The two places of a lane; None is a place that nobody holds."""

    pad: Guard | None = None
    share: Guard | None = None

    def holder(self, side: Side) -> Guard | None:
        return self.pad if side == "pad" else self.share


class GuardBook(Struct, frozen=True):
    """All that is remembered; rules make new books of old ones."""

    born: float
    """When this node began to remember."""
    looked: float
    """When it last looked who is there."""
    lanes: dict[str, tuple[LanePlaces, ...]] = field(default_factory=dict)
    """By model id."""
    seen: dict[PeerId, tuple[float, float]] = field(default_factory=dict)
    """When each peer was seen first and last."""
    caught: frozenset[PeerId] = frozenset()
    """Peers that returned a wrong number: never guards again."""

    def roles(self) -> dict[PeerId, Side]:
        """The side of every guard, whatever the model."""
        return {
            guard.peer_id: side
            for lanes in self.lanes.values()
            for places in lanes
            for side in SIDES
            if (guard := places.holder(side)) is not None
        }


def encode_book(book: GuardBook) -> str:
    """As the file holds it."""
    value: dict[str, Any] = to_builtins(book) | {"version": FILE_VERSION, "caught": sorted(book.caught)}
    return json.dumps(value, indent=1)


def decode_book(text: str) -> GuardBook:
    """Raises ValueError for anything but a book of this version."""
    value = json.loads(text)
    try:
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
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"it lacks or spoils a field ({exc})") from exc


def read_book(path: Path) -> GuardBook | None:
    """The book on disk; None where there is none. Raises ConfigError for what is none.

    A damaged book is never replaced silently: whoever can damage it would choose the guards.
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
    """Complete or not at all, mode 0600."""
    replace_private(path, encode_book(book).encode())


def _read_guard(value: Any) -> Guard | None:
    if value is None:
        return None
    return Guard(PeerId(str(value["peer_id"])), float(value["since"]), float(value["until"]), float(value["down_s"]))
