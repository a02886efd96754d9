"""The file of peers' figures: a process that has just begun predicts from what the ones before it measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from node.errors import KekahydeError
from node.measures.peers import KnownFigures, Measures
from node.store.files import replace_private
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, public_key_of

log = logging.getLogger(__name__)

KEPT_S = 86400.0
"""A figure that nobody has measured again for so long is forgotten: the peer, or the way to it, may be another."""
MAX_KEPT = 256
"""Most peers in the file; those that were measured longest ago are left out."""
MAX_BYTES = 1 << 18

Time = Annotated[float, Meta(ge=0, le=1e11)]
Seconds = tuple[Annotated[float, Meta(ge=0, le=60)], Time]
PerSecond = tuple[Annotated[float, Meta(gt=0, le=1e18)], Time]
"""A figure, and when it was measured (Unix time)."""


class _Entry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A peer's figures, under the names that `KnownFigures` gives them."""

    ping_s: Seconds | None = None
    way_s: Seconds | None = None
    row_macs_per_s: PerSecond | None = None
    rows_macs_per_s: PerSecond | None = None
    bytes_per_s: PerSecond | None = None

    def items(self) -> dict[str, tuple[float, float]]:
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}

    @property
    def newest(self) -> float:
        return max((at for _figure, at in self.items().values()), default=0.0)


class KeptMeasures:
    """Reads the file into `measures`, and writes it from there. What fails here costs predictions alone.

    Args:
        path: None: nothing is kept.
        unix_s: the time.
    """

    def __init__(self, path: Path | None, measures: Measures, unix_s: Callable[[], float] = time.time) -> None:
        self._path, self._measures, self._unix_s = path, measures, unix_s
        self._entries = {} if path is None else self._read(path)
        for peer_id, entry in self._entries.items():
            figures = {name: figure for name, (figure, _at) in entry.items().items()}
            measures.of(peer_id).begin_with(KnownFigures(**figures))

    def write(self) -> None:
        """Write the file anew if anything was measured."""
        measured = {} if self._path is None else self._measures.known()
        if self._path is None or not measured:
            return
        now, entries = self._unix_s(), dict(self._entries)
        for peer_id, figures in measured.items():
            new = {
                name: (figure, now) for name, figure in msgspec.structs.asdict(figures).items() if figure is not None
            }
            old = entries[peer_id].items() if peer_id in entries else {}
            entry = _entry_of(peer_id, {**old, **new})
            if entry is not None:
                entries[peer_id] = entry
        latest = sorted(entries.items(), key=lambda item: item[1].newest, reverse=True)[:MAX_KEPT]
        try:
            replace_private(self._path, msgspec.json.encode(dict(latest)))
        except KekahydeError as exc:
            log.warning("%s", exc)

    def _read(self, path: Path) -> dict[PeerId, _Entry]:
        """What is in the file and may be used; an entry that is not as it is written is left out."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            found = (
                msgspec.json.decode(content, type=dict[str, dict[str, object]]) if len(content) <= MAX_BYTES else {}
            )
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            log.warning("%s cannot be read and is not used (%s): peers are measured anew", path, type(exc).__name__)
            return {}
        now, entries = self._unix_s(), dict[PeerId, _Entry]()
        for peer_id, values in list(found.items())[:MAX_KEPT]:
            entry = _entry_of(peer_id, values)
            fresh = {} if entry is None else {name: one for name, one in entry.items().items() if _is_fresh(one, now)}
            if fresh:
                entries[PeerId(peer_id)] = _Entry(**fresh)
        return entries


def _is_fresh(figure: tuple[float, float], now: float) -> bool:
    return now - KEPT_S < figure[1] <= now


def _entry_of(peer_id: str, values: Mapping[str, object]) -> _Entry | None:
    """None where anything is not as it is written."""
    try:
        public_key_of(peer_id)
        return msgspec.convert(dict(values), _Entry)
    except (RemoteProtocolError, ValueError):
        return None
