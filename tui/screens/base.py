"""The common parts of every mode: the line of screens, a body, the status line, the keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from tui.session import NodeSession
from tui.widgets.bars import NavBar, StatusLine
from tui.words import status_line

LIVE_S = 0.25
"""How often the status line is updated while an answer is being written."""


class NodeScreen(Screen[None]):
    """One mode of the interface. A subclass's handlers named `on_...` run in addition to those here."""

    MODE: ClassVar[str] = ""
    ABOUT: ClassVar[str] = ""
    """The text in Help about this screen, as Markdown."""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (70, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.leave", "Quit", show=False)]

    def __init__(self, session: NodeSession) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        yield NavBar(self.MODE)
        yield from self.body()
        yield StatusLine()
        yield Footer(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """The widgets between the lines."""
        yield from ()

    def on_mount(self) -> None:
        self._live = self.set_interval(LIVE_S, self._follow, pause=True)
        self.show("state")

    def on_screen_resume(self) -> None:
        self._live.resume()
        self.show("state")

    def on_screen_suspend(self) -> None:
        self._live.pause()

    def on_resize(self) -> None:
        self.show_status()

    def _follow(self) -> None:
        if self.session.busy:
            self.show_status()

    def show(self, topic: str) -> None:
        """Draw what changed; called only for the visible mode."""
        if topic in ("state", "link", "answer"):
            self.show_status()

    def show_status(self) -> None:
        """Draw the status line."""
        session = self.session
        line = status_line(
            session.link, session.state, session.answer, session.privacy, session.model_name, self.size.width - 2
        )
        self.query_one(StatusLine).show(line)
