"""Views of chunks: a list of rows, a timeline of which peer computed when, a map of the model.

They draw line by line, and only visible lines, because they change several times a second.
"""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui.chunks import HERE, MARKS, TICK_S, ChunkBoard, ChunkRow, Place
from tui.words import bar, chunk_state

_SHADES = " ░▒▓█"
FULL_CELL = 64
"""Number of chunks that fills one column of the timeline."""
NAME_WIDTH = 13
RECENT_TICKS = 4
"""For so many columns a place in the model counts as active."""


class ChunkView(Widget):
    """The common parts of the three views: a board, a time, plain lines."""

    DEFAULT_CSS = "ChunkView { height: auto; width: 1fr; }"
    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"chunk--done", "chunk--odd", "chunk--bad", "chunk--rest"}

    def __init__(self, board: ChunkBoard, id: str) -> None:  # noqa: A002 - the library's word
        super().__init__(id=id)
        self.board = board
        self.now = 0.0

    def show(self, now: float) -> None:
        """Draw the board at the given time."""
        self.now = now
        self.refresh()

    def _strip(self, pieces: list[tuple[str, Style | None]]) -> Strip:
        base = self.rich_style
        segments = [Segment(text, base if style is None else base + style) for text, style in pieces]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _emphasis(self, state: str) -> Style | None:
        """The style for a state; its sign and word say the same without the style."""
        name = EMPHASIS.get(state)
        return self.get_component_rich_style(name) if name else None


BOLD, DIM = Style(bold=True), Style(dim=True)
EMPHASIS = {
    "rejected": "chunk--bad",
    "lost": "chunk--bad",
    "late": "chunk--odd",
    "hedged": "chunk--odd",
    "local": "chunk--odd",
    "verified": "chunk--done",
    "merged": "chunk--rest",
    "dropped": "chunk--rest",
}


class ChunkList(ChunkView):
    """One row per chunk: chunks in flight first, then the newest."""

    def __init__(self, board: ChunkBoard) -> None:
        super().__init__(board, "chunk-list")
        self.only_trouble = False
        self._rows: list[ChunkRow] = []

    def on_resize(self) -> None:
        self.show(self.now)

    def show(self, now: float) -> None:
        self._rows = self.board.newest(max(0, self.size.height - 1), self.only_trouble)
        super().show(now)

    def render_line(self, y: int) -> Strip:
        wide = self.size.width >= 76
        if y == 0:
            return self._strip([(_row_text("layer", "unit", "rows", "peer", "role", "state", "ms", wide), BOLD)])
        if y > len(self._rows):
            return self._strip([("", None)])
        row = self._rows[y - 1]
        peer = self.board.label(row.peer_id) if row.peer_id else "this device"
        rows = f"{row.row_start}–{row.row_end}"
        milliseconds = f"{row.ms:.1f}" if row.ms else ""
        text = _row_text(str(row.layer), row.unit, rows, peer, row.role, chunk_state(row.state), milliseconds, wide)
        return self._strip([(text, self._emphasis(row.state))])


def _row_text(layer: str, unit: str, rows: str, peer: str, role: str, state: str, ms: str, wide: bool) -> str:
    text = f"{layer:>5}  {unit:<8} {rows:>9}  {peer[:12]:<12}"
    return f"{text} {role:<6} {state:<20} {ms:>8}" if wide else f"{text} {state:<14.14} {ms:>6}"


class Timeline(ChunkView):
    """Which device computed when: one line per device, one column per half second, the newest at the right."""

    def __init__(self, board: ChunkBoard) -> None:
        super().__init__(board, "timeline")

    def render_line(self, y: int) -> Strip:
        columns = max(0, self.size.width - NAME_WIDTH)
        workers = self.board.workers()[: max(1, self.size.height - 1)]
        if y == len(workers):
            return self._strip([(self._scale(columns), DIM)])
        if y > len(workers):
            return self._strip([("", None)])
        worker = workers[y]
        name = "this device" if worker == HERE else self.board.label(worker)
        pieces: list[tuple[str, Style | None]] = [(f"{name[: NAME_WIDTH - 1]:<{NAME_WIDTH}}", None)]
        rest, odd, done = self._emphasis("dropped"), self._emphasis("local"), self._emphasis("verified")
        for cell in self.board.cells(worker, self.now, columns):
            if cell is None:
                pieces.append(("·", rest))
            elif cell.mark:
                pieces.append((MARKS[cell.mark], self._emphasis(cell.mark)))
            else:
                shade = 1 + min(3, 4 * cell.done // FULL_CELL)
                pieces.append((_SHADES[shade], odd if worker == HERE else done))
        return self._strip(pieces)

    @staticmethod
    def _scale(columns: int) -> str:
        past = f"{'':<{NAME_WIDTH}}{columns * TICK_S:.0f} s ago"
        return f"{past}{'now':>{max(0, columns - len(past) + NAME_WIDTH)}}"


class ModelMap(ChunkView):
    """Where in the model: one line per kind of unit, one column per layer; dark is slow, a dot is inactive."""

    def __init__(self, board: ChunkBoard) -> None:
        super().__init__(board, "model-map")

    def render_line(self, y: int) -> Strip:
        units = self.board.units
        if y == len(units) and units:
            return self._strip([(self._scale(), DIM)])
        if y >= len(units):
            return self._strip([("", None)])
        unit = units[y]
        slowest = max((place.ms for place in self.board.places.values()), default=0.0)
        pieces: list[tuple[str, Style | None]] = [(f"{unit:<{NAME_WIDTH}.{NAME_WIDTH - 1}}", None)]
        for layer in range(self.board.layers):
            place = self.board.places.get((unit, layer))
            pieces.append(self._cell(place, slowest))
        return self._strip(pieces)

    def _cell(self, place: Place | None, slowest: float) -> tuple[str, Style | None]:
        wide = 2 if self.board.layers * 2 <= self.size.width - NAME_WIDTH else 1
        if place is None:
            return (" " * wide, None)
        if place.state in MARKS:
            return (MARKS[place.state] * wide, self._emphasis(place.state))
        if int(self.now / TICK_S) - place.tick > RECENT_TICKS:
            return ("·" * wide, self._emphasis("dropped"))
        shade = 1 + min(3, int(4 * place.ms / slowest)) if slowest else 1
        return (_SHADES[shade] * wide, self._emphasis("verified"))

    def _scale(self) -> str:
        slowest = max((place.ms for place in self.board.places.values()), default=0.0)
        last = self.board.layers - 1
        return f"{'':<{NAME_WIDTH}}layer 0 to {last}; {bar(1.0, 1)} slowest, {slowest:.1f} ms a chunk"
