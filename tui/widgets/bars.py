"""The line of screens at the top and the status line above the keys."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

TABS = (
    ("F2", "chat", "Chat"),
    ("F3", "peers", "Peers"),
    ("F4", "models", "Models"),
    ("F5", "chunks", "Chunks"),
    ("F6", "logs", "Logs"),
)
TITLE_FROM_WIDTH = 76


class NavBar(Static):
    """The list of screens, with the current one marked; they open by key or by mouse."""

    def __init__(self, mode: str) -> None:
        super().__init__(id="nav", markup=False)
        self._mode = mode

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        tabs = []
        for key, mode, title in TABS:
            text = f"[@click=app.switch_mode('{mode}')] {key} {title} [/]"
            tabs.append(f"[reverse b]{text}[/]" if mode == self._mode else text)
        name = "[b $primary] Kekahyde [/] " if self.size.width >= TITLE_FROM_WIDTH else ""
        self.update(Content.from_markup(name + "".join(tabs)))


class StatusLine(Static):
    """One line of facts, without markup."""

    def __init__(self) -> None:
        super().__init__(id="status", markup=False)
        self._line = ""

    def show(self, line: str) -> None:
        if line != self._line:
            self._line = line
            self.update(Content(line))

    @property
    def line(self) -> str:
        """The text of the line."""
        return self._line
