"""A table whose cells change several times a second: only the visible rows are drawn, as plain lines.

Textual's DataTable measures and renders every cell again when one of them changes, which is too slow for 64 peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

HEADER_LINES = 1


class LiveTable(ScrollView, can_focus=True):
    """Rows with keys, a fixed header, and a cursor that stays on its row."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--header", "table--cursor", "table--odd"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move(-10)", show=False),
        Binding("pagedown", "move(10)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
    ]
    ALLOW_SELECT = False

    class Moved(Message):
        """The cursor has moved to another row."""

    def __init__(self, id: str) -> None:  # noqa: A002 - the library's word
        super().__init__(id=id)
        self._columns: list[tuple[str, int]] = []
        self._rows: list[tuple[str, tuple[str, ...]]] = []
        self.cursor: str | None = None
        """The key of the chosen row."""

    def set_columns(self, columns: Sequence[tuple[str, int]]) -> None:
        """Set titles and widths; the rows must be set again afterwards."""
        self._columns = list(columns)
        self.set_rows([])

    def set_rows(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Set the keys and cells of all rows; draws only if something changed."""
        if rows == self._rows:
            return
        self._rows = list(rows)
        width = sum(width + 2 for _, width in self._columns)
        self.virtual_size = Size(width, len(rows) + HEADER_LINES)
        if rows and self._place() is None:
            self._go(0)
        self.refresh()

    def _place(self) -> int | None:
        return next((index for index, (key, _) in enumerate(self._rows) if key == self.cursor), None)

    def action_move(self, by: int) -> None:
        if self._rows:
            self._go(max(0, min(len(self._rows) - 1, (self._place() or 0) + by)))

    def _go(self, index: int) -> None:
        self.cursor = self._rows[index][0]
        self.scroll_to_region(Region(0, index, 1, 1 + HEADER_LINES), animate=False)
        self.post_message(self.Moved())
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        index = event.y - HEADER_LINES + round(self.scroll_y)
        if event.y >= HEADER_LINES and index < len(self._rows):
            self._go(index)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y < HEADER_LINES:
            style = self.get_component_rich_style("table--header")
            return Strip([Segment(self._line([title for title, _ in self._columns]), style)]).adjust_cell_length(
                width, style
            )
        index = y - HEADER_LINES + round(self.scroll_y)
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        key, cells = self._rows[index]
        name = "table--cursor" if key == self.cursor else "table--odd" if index % 2 else None
        style = self.rich_style if name is None else self.get_component_rich_style(name)
        return Strip([Segment(self._line(cells), style)]).adjust_cell_length(width, style)

    def _line(self, cells: Sequence[str]) -> str:
        pairs = zip(cells, self._columns, strict=True)
        return " " + "  ".join(f"{cell:<{width}.{width}}" for cell, (_, width) in pairs)
