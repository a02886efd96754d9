"""The conversation: prompts, answers in segments, and only what is near the eye kept as widgets.

A segment far outside the visible part gives up its Markdown and keeps its height; it is drawn again when it comes
near. So a conversation of any length costs what one or two pages cost, and the scroll bar stays true.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget
from textual.widgets import Static

from tui.widgets.markdown import ModelMarkdown

MARGIN_PAGES = 1
"""Pages above and below the visible one, whose segments stay drawn."""
SHOWN_TURNS = 20
"""Turns at the end that are shown at first; a click brings as many more."""


class PromptView(Static):
    """What a person asked."""

    def __init__(self, prompt: str) -> None:
        super().__init__(Content(prompt), classes="prompt-view", markup=False)


class Segment(Widget):
    """A piece of an answer, drawn or remembered by its height."""

    DEFAULT_CSS = "Segment { height: auto; width: 1fr; }"

    def __init__(self, source: str = "", live: bool = False) -> None:
        super().__init__()
        self.source = source
        self.live = live
        """Whether text may still come; such a segment stays drawn."""
        self._markdown: ModelMarkdown | None = None
        self._starts_folded = False

    @classmethod
    def folded(cls, source: str, width: int) -> Segment:
        """A complete piece that is drawn when it comes near; its height is a guess until then."""
        segment = cls(source)
        lines = source.rstrip("\n").split("\n")
        segment.styles.height = sum(1 + len(line) // max(1, width) for line in lines) + 1
        segment._starts_folded = True
        return segment

    def compose(self) -> ComposeResult:
        if not self._starts_folded:
            self._markdown = ModelMarkdown(self.source or None)
            yield self._markdown

    @property
    def drawn(self) -> bool:
        return self._markdown is not None

    async def write(self, text: str) -> None:
        """Append to the live segment; returns when it is laid out."""
        self.source += text
        if self._markdown is not None:
            await self._markdown.append(text)

    async def draw(self) -> None:
        """Become a widget again."""
        if self._markdown is None:
            self._markdown = ModelMarkdown(self.source)
            await self.mount(self._markdown)
            self.styles.height = "auto"

    def fold(self, height: int) -> None:
        """Keep only the height."""
        if self._markdown is not None and not self.live:
            self.styles.height = height
            self._markdown.remove()
            self._markdown = None


class ConversationView(VerticalScroll):
    """All turns, following the end until a person scrolls up."""

    BLANK = True
    can_focus = False

    def on_mount(self) -> None:
        self.anchor()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.call_after_refresh(self.window)

    def watch_virtual_size(self, old_value: Size, new_value: Size) -> None:
        if old_value.height != new_value.height:
            self.call_after_refresh(self.window)

    async def window(self) -> None:
        """Fold what is far away, draw what is near."""
        if not self.is_attached:
            return
        margin = MARGIN_PAGES * self.size.height
        top, bottom = self.scroll_y - margin, self.scroll_y + self.size.height + margin
        near = []
        for placement in self.arrange(self.size).placements:
            segment, region = placement.widget, placement.region
            if not isinstance(segment, Segment):
                continue
            if region.bottom < top or region.y > bottom:
                segment.fold(region.height)
            elif not segment.drawn:
                near.append(segment)
        for segment in near:
            await segment.draw()
