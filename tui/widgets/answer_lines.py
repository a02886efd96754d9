"""The part of an answer that no longer grows, as lines: one widget for any length.

A tree of Markdown widgets needs a layout on every frame; lines cost nothing until they are visible. Each piece of the
text is laid out once, on a workbench, when it comes near the visible part; until then it is an estimated number of
blank lines.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from rich.segment import Segment
from textual._compositor import Compositor
from textual.containers import VerticalScroll
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from tui.widgets.markdown import ModelMarkdown, show_link

MAX_LOOKS = 100
LOOK_AGAIN_S = 0.01
"""How often, and with what pause, we check whether the screen has laid out a piece."""


@dataclass(slots=True, eq=False)
class Piece:
    """A piece of the text and its drawn lines."""

    source: str
    height: int
    """Number of its lines; an estimate until it was drawn."""
    strips: list[Strip] = field(default_factory=list)
    width: int = 0
    """The width for which its lines were made; 0 if they must be made, or made again."""


def guessed_height(source: str, width: int) -> int:
    """Roughly how many lines a piece of Markdown takes."""
    return 1 + sum(1 + len(line) // max(1, width) for line in source.rstrip("\n").split("\n"))


async def lines_of(markdown: ModelMarkdown) -> list[Strip] | None:
    """The lines of a Markdown widget, once the screen has laid it out; None if that does not happen."""
    for _ in range(MAX_LOOKS):
        refreshed = asyncio.Event()
        markdown.call_after_refresh(refreshed.set)
        await refreshed.wait()
        if not markdown.children:
            return []
        if _is_laid_out(markdown):
            compositor = Compositor()
            compositor.reflow(markdown, markdown.outer_size)
            return compositor.render_strips()
        await asyncio.sleep(LOOK_AGAIN_S)
    return None


def _is_laid_out(markdown: ModelMarkdown) -> bool:
    """Whether the screen knows all parts at their current size: a refresh may come before the layout."""
    known = markdown.screen._compositor.full_map
    if any(part not in known for part in markdown.walk_children(Widget)):
        return False
    size = markdown.content_size
    needed = markdown.get_content_height(markdown.container_size, markdown.app.size, size.width)
    return bool(size.area) and needed == size.height


class Workbench(VerticalScroll):
    """The place where a piece is laid out: as wide as the conversation, and never visible."""

    DEFAULT_CSS = "Workbench { height: 0; width: 1fr; overflow: hidden hidden; }"
    can_focus = False

    async def draw(self, piece: Piece) -> None:
        """Make the lines of a piece."""
        markdown = ModelMarkdown()
        await self.mount(markdown)
        try:
            await markdown.update(piece.source)
            width = self.size.width
            strips = await lines_of(markdown)
            if strips is not None:
                piece.strips, piece.height, piece.width = strips, len(strips), width
        finally:
            await markdown.remove()


class AnswerLines(Widget):
    """Pieces, one below the other."""

    DEFAULT_CSS = "AnswerLines { height: 0; width: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Piece] = []
        self._ends: list[int] = []

    def add(self, *pieces: Piece) -> None:
        """Append complete pieces."""
        self.pieces.extend(pieces)
        self.measure()

    def measure(self) -> None:
        """Update the height from the current heights of the pieces."""
        self._ends = list(accumulate(piece.height for piece in self.pieces))
        self.styles.height = self._ends[-1] if self._ends else 0
        self.refresh()

    def make_stale(self) -> None:
        """Mark all lines as outdated; they are made again when they become visible."""
        for piece in self.pieces:
            piece.width = 0

    def around(self, top: float, bottom: float) -> Iterator[tuple[Piece, int, int]]:
        """The pieces between two lines, each with its first line and the line after its last."""
        first = bisect_right(self._ends, max(0, top))
        for index in range(first, len(self.pieces)):
            piece, end = self.pieces[index], self._ends[index]
            if end - piece.height > bottom:
                return
            yield piece, end - piece.height, end

    def keep_only(self, top: float, bottom: float) -> None:
        """Drop the lines of pieces outside this range."""
        near = {id(piece) for piece, _, _ in self.around(top, bottom)}
        for piece in self.pieces:
            if piece.strips and id(piece) not in near:
                piece.strips, piece.width = [], 0

    def render_line(self, y: int) -> Strip:
        index = bisect_right(self._ends, y)
        if index >= len(self.pieces):
            return Strip.blank(self.size.width, self.rich_style)
        piece = self.pieces[index]
        within = y - (self._ends[index] - piece.height)
        if within >= len(piece.strips):
            return Strip.blank(self.size.width, self.rich_style)
        strip = piece.strips[within]
        selection = self.text_selection
        span = None if selection is None else selection.get_span(y)
        if span is not None:
            strip = self._selected(strip, *span)
        return strip.adjust_cell_length(self.size.width, self.rich_style).apply_offsets(0, y)

    def _selected(self, strip: Strip, start: int, end: int) -> Strip:
        """The line with the cells from start to end (-1: its end) marked as selected."""
        style = self.screen.get_component_rich_style("screen--selection")
        end = strip.cell_length if end == -1 else min(end, strip.cell_length)
        before, marked, after = strip.crop(0, start), strip.crop(start, end), strip.crop(end, strip.cell_length)
        return Strip.join([before, Strip(Segment.apply_style(marked, post_style=style)), after])

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The visible text, without blanks at the ends of lines."""
        lines: list[str] = []
        for piece in self.pieces:
            seen = [strip.text for strip in piece.strips]
            lines += seen + [""] * (piece.height - len(seen))
        text = selection.extract("\n".join(lines))
        return "\n".join(line.rstrip() for line in text.split("\n")), "\n"

    def action_link(self, address: str) -> None:
        """Handle a click on a link."""
        show_link(self, address)
