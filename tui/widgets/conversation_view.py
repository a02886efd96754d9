"""The conversation: prompts and answers; only the part near the visible page is drawn."""

from __future__ import annotations

from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from tui.widgets.answer_lines import AnswerLines, Piece, Workbench

MARGIN_PAGES = 1
"""So many pages above and below the visible one are drawn ahead."""
KEPT_PAGES = 25
"""The lines of so many pages above and below are kept."""
SHOWN_TURNS = 20
"""So many turns at the end are shown at first; each click shows as many more."""


class PromptView(Static):
    """A prompt of the user."""

    def __init__(self, prompt: str) -> None:
        super().__init__(Content(prompt), classes="prompt-view", markup=False)


class ConversationView(VerticalScroll):
    """All turns; the view follows the end until the user scrolls up."""

    BLANK = True
    can_focus = False

    def __init__(self) -> None:
        super().__init__(id="conversation")
        self._is_due = False
        self._is_drawing = False

    def on_mount(self) -> None:
        self.anchor()
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._draw_anew())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.look()

    def watch_virtual_size(self, old_value: Size, new_value: Size) -> None:
        if old_value != new_value:
            self.look()

    def on_resize(self) -> None:
        self.look()

    def _draw_anew(self) -> None:
        for lines in self.query(AnswerLines):
            lines.make_stale()
        self.look()

    def look(self) -> None:
        """Draw pieces that have come near, one per turn of the event loop, so that keys work meanwhile."""
        self._is_due = True
        if not self._is_drawing:
            self._is_drawing = True
            self.run_worker(self._draw_near(), group="draw")

    async def _draw_near(self) -> None:
        try:
            while self._is_due:
                self._is_due = False
                found = self._nearest_undrawn()
                if found is not None:
                    await self._draw(*found)
                    self._is_due = True
        finally:
            self._is_drawing = False

    async def _draw(self, lines: AnswerLines, piece: Piece, is_above: bool) -> None:
        before = piece.height
        await self.query_one(Workbench).draw(piece)
        lines.measure()
        if is_above and piece.height != before:  # the visible text stays in place
            self.scroll_to(y=self.scroll_y + piece.height - before, animate=False, force=True)

    def _nearest_undrawn(self) -> tuple[AnswerLines, Piece, bool] | None:
        """The piece to draw next: visible pieces first, from the top, then those around them."""
        page, width = self.size.height, self.query_one(Workbench).size.width
        top, bottom = self.scroll_y, self.scroll_y + page
        margin, kept = MARGIN_PAGES * page, KEPT_PAGES * page
        found, found_distance = None, margin + 1.0
        for placement in self.arrange(self.size).placements:
            lines, at = placement.widget, placement.region.y
            if not isinstance(lines, AnswerLines):
                continue
            lines.keep_only(top - at - kept, bottom - at + kept)
            for piece, start, end in lines.around(top - at - margin, bottom - at + margin):
                distance = max(top - (at + end), at + start - bottom, 0)
                if piece.width != width and distance < found_distance:
                    found, found_distance = (lines, piece, at + end <= top), distance
        return found
