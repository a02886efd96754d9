"""The file of peers' figures: a process that has just begun predicts from what the ones before it measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from node.errors import KekahydeError
from node.json_file import read_bounded
from node.measures.peers import KnownFigures, Measures
from node.store.files import replace_private
from protocol.identity import PeerId, public_key_of

log = logging.getLogger(__name__)

KEPT_S = 7 * 86400.0
"""Figures that nobody has measured again for so long are forgotten."""
MAX_KEPT = 256
"""Most peers in the file; those that were measured longest ago are left out."""
MAX_BYTES = 1 << 17

Seconds = Annotated[float, Meta(gt=0, le=60)]
PerSecond = Annotated[float, Meta(gt=0, le=1e18)]


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """A peer's figures, and when they were measured (Unix time)."""

    at: Annotated[float, Meta(ge=0, le=1e11)]
    way_s: Seconds | None = None
    row_macs_per_s: PerSecond | None = None
    rows_macs_per_s: PerSecond | None = None
    bytes_per_s: PerSecond | None = None

    @property
    def figures(self) -> KnownFigures:
        return KnownFigures(self.way_s, self.row_macs_per_s, self.rows_macs_per_s, self.bytes_per_s)


class KeptMeasures:
    """Reads the file into `measures`, and writes it from there.

    Args:
        path: None: nothing is kept.
        unix_s: the time.
    """

    def __init__(self, path: Path | None, measures: Measures, unix_s: Callable[[], float] = time.time) -> None:
        self._path, self._measures, self._unix_s = path, measures, unix_s
        self._entries = {} if path is None else self._read(path)
        for peer_id, entry in self._entries.items():
            measures.of(peer_id).begin_with(entry.figures)
        self._begun_with = measures.known()

    def write(self) -> None:
        """Write the file anew if anything was measured; where that fails, only predictions suffer."""
        now, known = self._unix_s(), self._measures.known()
        if self._path is None or known == self._begun_with:
            return
        for peer_id, figures in known.items():
            if figures != self._begun_with.get(peer_id):
                self._entries[peer_id] = _Entry(now, *msgspec.structs.astuple(figures))
        latest = sorted(self._entries.items(), key=lambda item: item[1].at, reverse=True)[:MAX_KEPT]
        content = msgspec.json.encode(dict(latest))
        try:
            _entries_of(content)  # what would not be read is not written
            replace_private(self._path, content)
        except (ValueError, KekahydeError) as exc:
            log.warning("%s", exc)

    def _read(self, path: Path) -> dict[PeerId, _Entry]:
        if not path.exists():
            return {}
        try:
            entries = _entries_of(read_bounded(path, MAX_BYTES))
        except (ValueError, KekahydeError) as exc:
            log.warning("%s is damaged and not used (%s): peers are measured anew", path, exc)
            return {}
        now = self._unix_s()
        return {peer_id: entry for peer_id, entry in entries.items() if now - KEPT_S < entry.at <= now}


def _entries_of(content: bytes) -> dict[PeerId, _Entry]:
    """Raises ValueError or KekahydeError for anything but what is written."""
    entries = msgspec.json.decode(content, type=dict[str, _Entry])
    if len(entries) > MAX_KEPT:
        raise ValueError(f"more than {MAX_KEPT} peers")
    for peer_id in entries:
        public_key_of(peer_id)
    return {PeerId(peer_id): entry for peer_id, entry in entries.items()}
