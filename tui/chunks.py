"""The history of chunks: rows for a list, a timeline of which peer computed when, a map of the model.

It gets the records that the gateway sends, in order, and reads no clock. It keeps a bounded number of them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tui.snapshot import clean, short_id

TICK_S = 0.5
"""Width of a column of the timeline."""
MAX_TICKS = 240
MAX_ROWS = 2000
HERE = ""
"""The row of this device in the timeline."""
UNIT_ORDER = ("qkv", "o", "gate_up", "down", "head")
OPEN_STATES = frozenset({"planned", "sent", "received", "verified", "late", "lost", "rejected"})
TROUBLE = frozenset({"late", "hedged", "rejected", "lost", "local"})
# If several things happened in one column of the timeline, it shows the worst.
MARKS = {"rejected": "✗", "lost": "!", "late": "?"}
_GRAVITY = {"": 0, "late": 1, "lost": 2, "rejected": 3}


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """The latest known facts about one chunk."""

    seq: int
    request: str
    layer: int
    unit: str
    row_start: int
    row_end: int
    peer_id: str
    role: str
    state: str
    ms: float
    trouble: bool
    """Whether anything ever went wrong with it."""

    @property
    def open(self) -> bool:
        return self.state in OPEN_STATES


@dataclass(slots=True)
class Cell:
    """What one worker did in one column of the timeline."""

    done: int = 0
    mark: str = ""

    def add(self, state: str) -> None:
        if state in _GRAVITY:
            self.mark = max(self.mark, state, key=_GRAVITY.__getitem__)
        else:
            self.done += 1


@dataclass(slots=True)
class Place:
    """What is known about one unit of one layer."""

    tick: int = -1
    state: str = ""
    ms: float = 0.0
    """Smoothed time of one of its chunks."""


class ChunkBoard:
    """Everything that is shown about chunks."""

    def __init__(self) -> None:
        self.rows: OrderedDict[int, ChunkRow] = OrderedDict()
        self.totals: Counter[str] = Counter()
        self.dropped = 0
        self.timeline: dict[str, deque[tuple[int, Cell]]] = {}
        self.places: dict[tuple[str, int], Place] = {}
        self.units: list[str] = []
        self.labels: dict[str, str] = {}
        """What each peer is called, by PeerID."""
        self.layers = 0
        self.version = 0
        """Increases with every change, so that a reader knows whether to draw."""

    def label(self, peer_id: str) -> str:
        """What a peer is called."""
        return self.labels.get(peer_id) or short_id(peer_id)

    def apply(self, items: Iterable[Any], now: float, dropped: int = 0) -> None:
        """Take a batch of records; items that are not records are ignored."""
        tick = int(now / TICK_S)
        for item in items:
            row = _row(item)
            if row is not None:
                self._note(row, tick)
        self.dropped += dropped
        self.version += 1
        while len(self.rows) > MAX_ROWS:
            self.rows.popitem(last=False)

    def _note(self, row: ChunkRow, tick: int) -> None:
        before = self.rows.get(row.seq)
        if before is not None and before.trouble and not row.trouble:
            row = replace(row, trouble=True)
        self.rows[row.seq] = row
        if before is None or before.state != row.state:
            self.totals[row.state] += 1
            self._mark(row, tick)
        place = self.places.get((row.unit, row.layer))
        if place is None:
            place = self.places[row.unit, row.layer] = Place()
            self.layers = max(self.layers, row.layer + 1)
            if row.unit not in self.units:
                self.units.append(row.unit)
                self.units.sort(key=lambda unit: UNIT_ORDER.index(unit) if unit in UNIT_ORDER else len(UNIT_ORDER))
        place.tick, place.state = tick, row.state
        if row.state == "verified":
            place.ms = row.ms if place.ms == 0.0 else 0.8 * place.ms + 0.2 * row.ms

    def close(self, request: str) -> None:
        """A request has ended: its chunks in flight will never arrive."""
        for seq, row in self.rows.items():
            if row.request == request and row.open:
                self.rows[seq] = replace(row, state="dropped")
        self.version += 1

    def _mark(self, row: ChunkRow, tick: int) -> None:
        if row.state in ("verified", "rejected", "lost", "late"):
            worker = row.peer_id
        elif row.state in ("local", "hedged"):
            worker = HERE
        else:
            return
        cells = self.timeline.setdefault(worker, deque(maxlen=MAX_TICKS))
        if not cells or cells[-1][0] != tick:
            cells.append((tick, Cell()))
        cells[-1][1].add(row.state)

    def newest(self, count: int, only_trouble: bool = False) -> list[ChunkRow]:
        """Rows for the list: open chunks first, then the newest."""
        chosen: list[ChunkRow] = []
        finished: list[ChunkRow] = []
        for row in reversed(self.rows.values()):
            if only_trouble and not row.trouble:
                continue
            (chosen if row.open else finished).append(row)
            if len(chosen) >= count:
                break
        return (chosen + finished)[:count]

    @property
    def in_flight(self) -> int:
        return sum(row.open for row in list(self.rows.values())[-512:])

    def workers(self) -> list[str]:
        """Who is in the timeline: this device first, then peers in order of their ids."""
        peers = [worker for worker in self.timeline if worker != HERE]
        peers.sort()
        return [HERE, *peers]

    def cells(self, worker: str, now: float, width: int) -> list[Cell | None]:
        """The last `width` columns of a worker; None for a column in which it did nothing."""
        last = int(now / TICK_S)
        row: list[Cell | None] = [None] * width
        for tick, cell in self.timeline.get(worker, ()):
            column = width - 1 - (last - tick)
            if 0 <= column < width:
                row[column] = cell
        return row


def _row(item: Any) -> ChunkRow | None:
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) < 10:
        return None
    seq, request, layer, unit, row_start, row_end, peer_id, role, state, ms = item[:10]
    if not all(isinstance(number, int) for number in (seq, layer, row_start, row_end)):
        return None
    return ChunkRow(
        seq,
        str(request),
        max(0, layer),
        clean(str(unit)),
        row_start,
        row_end,
        clean(str(peer_id or "")),
        clean(str(role or "")),
        clean(str(state)),
        float(ms) if isinstance(ms, (int, float)) else 0.0,
        state in TROUBLE,
    )
