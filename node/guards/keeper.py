"""`GuardKeeper`: the guard book of a running node, stored on disk. Thread-safe."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from node.errors import KekahydeError
from node.guards.book import MAX_CAUGHT, SIDES, GuardBook, read_book, write_book
from node.guards.rules import DAY_S, MAX_DOWN_S, choose, is_known, look
from node.guards.separation import Candidate, what_gave_way
from protocol.identity import PeerId

log = logging.getLogger(__name__)

WRITE_INTERVAL_S = 600.0
"""How often it is written which peers were seen; a change of guards is written at once."""


def _holders(book: GuardBook) -> dict[str, list[PeerId | None]]:
    """Who has which place, without how long it was away."""
    return {
        model: [None if guard is None else guard.peer_id for places in lanes for guard in map(places.holder, SIDES)]
        for model, lanes in book.lanes.items()
    }


class ChosenPlaces(Struct, frozen=True):
    """Guards for a session: places 2i and 2i + 1 are the pad and the share side of a lane; None is an empty place."""

    places: tuple[PeerId | None, ...]
    notes: tuple[str, ...]


class GuardKeeper:
    """Remembers guards; `path` None keeps them in memory.

    Args:
        banned: says whether this node has banned a peer.
    """

    def __init__(
        self,
        path: Path | None,
        unix_s: Callable[[], float],
        banned: Callable[[PeerId], bool],
        rng: random.Random | None = None,
    ) -> None:
        """Raises ConfigError if the file is damaged."""
        self._path = path
        self._unix_s = unix_s
        self._banned = banned
        self._rng = rng or random.SystemRandom()
        self._lock = threading.Lock()
        now = unix_s()
        stored = None if path is None else read_book(path)
        self._book = GuardBook(born=now, looked=now) if stored is None else stored
        self._written_at = now
        self._written = self._book

    def look(self, present: Collection[PeerId]) -> None:
        """Note which peers are connected."""
        with self._lock:
            now = self._unix_s()
            self._book = look(self._book, present, now)
            if not 0 <= now - self._written_at < WRITE_INTERVAL_S:
                self._write(now)

    def places(
        self, model_id: str, candidates: Sequence[Candidate], present: Collection[PeerId], max_lanes: int
    ) -> ChosenPlaces:
        """The guards of a model in their places; empty places are filled if possible.

        Args:
            candidates: peers that hold units of the model.
            present: all connected peers.
        """
        there = {candidate.peer_id: candidate for candidate in candidates}
        with self._lock:
            now = self._unix_s()
            before = self._book
            seen = look(before, present, now)
            self._book = choose(seen, model_id, candidates, max_lanes, self._banned, now, self._rng)
            if _holders(self._book) != _holders(before):
                log.info("this node chose new guards: see guards.json")
                self._write(now)
            lanes = self._book.lanes[model_id][:max_lanes]
            new = sum(not is_known(self._book, candidate.peer_id, now) for candidate in candidates)
        holders = [[places.holder(side) for side in SIDES] for places in lanes]
        places = tuple(
            guard.peer_id if guard is not None and guard.peer_id in there else None
            for lane in holders
            for guard in lane
        )
        pairs = [
            (there[pad], there[share]) for pad, share in zip(places[::2], places[1::2], strict=True) if pad and share
        ]
        notes = what_gave_way(pairs)
        away = [
            guard.peer_id for lane in holders for guard in lane if guard is not None and guard.peer_id not in there
        ]
        if away:
            names = ", ".join(f"…{peer_id[-6:]}" for peer_id in away)
            kept = f"their places are kept for up to {MAX_DOWN_S / DAY_S:.0f} days"
            notes = (*notes, f"guards of this node are away: {names}; {kept}")
        if new and len(pairs) < max_lanes:
            notes = (*notes, f"{new} peers have been known for less than a day: they cannot be guards yet")
        return ChosenPlaces(places, notes)

    def caught(self, peer_id: PeerId) -> None:
        """A peer returned a wrong number: it loses its place and never becomes a guard again."""
        with self._lock:
            if peer_id not in self._book.caught:
                kept = sorted(self._book.caught)[-(MAX_CAUGHT - 1) :]
                self._book = replace(self._book, caught=frozenset([*kept, peer_id]))
                self._write(self._unix_s())

    def close(self) -> None:
        """Write what was seen since the last write, so that peers seen in a short run are known in the next."""
        with self._lock:
            if self._book != self._written:
                self._write(self._unix_s())

    def _write(self, now: float) -> None:
        self._written_at, self._written = now, self._book
        if self._path is None:
            return
        try:
            write_book(self._path, self._book)
        except KekahydeError as exc:
            log.warning("%s", exc)
