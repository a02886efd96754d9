"""Chunks: the pieces of work as they happen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from tui.chain import chain_lines, chain_of
from tui.screens.base import NodeScreen
from tui.session import NodeSession
from tui.snapshot import SpanFacts
from tui.widgets.chunk_views import ChunkList, ModelMap, Timeline
from tui.words import count_words

DRAW_S = 0.15
"""Pause between two drawings while something happens."""
STILL_DRAW_S = 0.5
"""Pause between two drawings while only the timeline moves."""
STILL_AFTER_S = 90.0
"""After so long without changes nothing is drawn any more: everything visible has left the timeline."""
LEGEND = "░▒▓█ more chunks   ✗ wrong, refused   ! lost   ? late   · nothing"
EMPTY = (
    "No chunks yet. A chunk is a piece of one layer's work that a peer does for you.\n"
    "They appear here when peers help with an answer: press F2, type, press Enter. F3 shows your peers."
)


class ChunksScreen(NodeScreen):
    """A timeline of workers, a map of the model, a list of chunks."""

    MODE = "chunks"
    ABOUT = (
        "**Who computes when**: one line per device, one column per half second, the newest at the right. **Where**: "
        "one line per kind of layer part, one column per layer; darker is slower. **Chunks**: one row each, those in "
        "flight first. **Space** stops the display, **f** shows only chunks with trouble."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "hold", "Hold", id="chunks.hold", tooltip="Stop the display; again: go on"),
        Binding("f", "only_trouble", "Only trouble", id="chunks.trouble", tooltip="Only chunks with trouble"),
        Binding("escape", "all", "All", show=False),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__(session)
        self._held = False
        self._chain: tuple[SpanFacts, ...] = ()
        self._drawn_version = -1
        self._drawn_at = 0.0
        self._news_at = 0.0

    def body(self) -> ComposeResult:
        board = self.session.board
        yield Static(EMPTY, id="no-chunks", classes="empty", markup=False)
        yield Static("", id="chain", markup=False)
        with Vertical(id="chunks"):
            yield Static("Who computes when", classes="heading", markup=False)
            with VerticalScroll(id="timeline-box"):
                yield Timeline(board)
            yield Static(LEGEND, id="legend", markup=False)
            yield Static("Where in the model", id="map-heading", classes="heading", markup=False)
            yield ModelMap(board)
            yield Static("Chunks", id="list-heading", classes="heading", markup=False)
            yield ChunkList(board)

    def on_mount(self) -> None:
        self._drawing = self.set_interval(DRAW_S, self._tick)
        self._draw()

    def on_screen_resume(self) -> None:
        self._drawing.resume()
        self._drawn_version = -1  # draw again when all widgets have their size
        self._draw()

    def on_screen_suspend(self) -> None:
        self._drawing.pause()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _tick(self) -> None:
        if self._held:
            return
        now, board = self.session.clock(), self.session.board
        if board.version != self._drawn_version or chain_of(self.session.state) not in ((), self._chain):
            self._drawn_version, self._news_at = board.version, now
            self._draw()
        elif now - self._news_at < STILL_AFTER_S and now - self._drawn_at >= STILL_DRAW_S:
            self._draw()

    def _draw(self) -> None:
        board, now = self.session.board, self.session.clock()
        self._drawn_at = now
        self._draw_chain()
        self.query_one("#no-chunks").display = not board.rows and not self._chain
        self.query_one("#chunks").display = bool(board.rows)
        if not board.rows:
            return
        timeline, places = self.query_one(Timeline), self.query_one(ModelMap)
        timeline.styles.height = len(board.workers()) + 1
        places.styles.height = len(board.units) + 1
        for view in (timeline, places, self.query_one(ChunkList)):
            view.show(now)
        self._head()

    def _draw_chain(self) -> None:
        """The way through the user's own devices; the last one stays until there is another."""
        self._chain = chain_of(self.session.state) or self._chain
        view = self.query_one("#chain", Static)
        view.display = bool(self._chain)
        if self._chain:
            view.update(chain_lines(self._chain))

    def _head(self) -> None:
        board = self.session.board
        chunk_list = self.query_one(ChunkList)
        parts = ["HELD (space)"] if self._held else []
        if chunk_list.only_trouble:
            parts.append("ONLY TROUBLE (f)")
        parts += [f"Chunks: {board.in_flight} in flight", f"✓ {board.totals['verified']} right"]
        parts += [f"✗ {board.totals['rejected']} wrong", f"! {board.totals['lost']} lost"]
        parts.append(f"⌂ {board.totals['local'] + board.totals['hedged']} here")
        if board.dropped:
            parts.append(f"{count_words(board.dropped, 'change')} not shown")
        self.query_one("#list-heading", Static).update(" · ".join(parts))

    def action_hold(self) -> None:
        self._held = not self._held
        self._draw()

    def action_only_trouble(self) -> None:
        chunk_list = self.query_one(ChunkList)
        chunk_list.only_trouble = not chunk_list.only_trouble
        self._draw()

    def action_all(self) -> None:
        """Show all chunks, and let the display move."""
        self._held = self.query_one(ChunkList).only_trouble = False
        self._draw()
