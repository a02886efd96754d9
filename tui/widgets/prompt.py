"""The input for prompts: Enter sends, ctrl+j begins a new line, up and down bring back earlier prompts."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

MAX_HISTORY = 200


class Prompt(TextArea):
    """A text area that sends its text on Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="prompt.send", tooltip="Send the prompt"),
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "New line", id="prompt.newline", show=False),
        Binding("up", "earlier", "Earlier prompt", show=False),
        Binding("down", "later", "Later prompt", show=False),
        Binding("pageup", "screen.page(-1)", "Page up", show=False),
        Binding("pagedown", "screen.page(1)", "Page down", show=False),
        Binding("ctrl+home", "screen.top", "To the beginning", show=False),
        Binding("ctrl+end", "screen.end", "To the end", show=False),
        Binding("ctrl+c", "app.interrupt", show=False),
        Binding("ctrl+y", "screen.copy_answer", show=False),
        Binding("f6", "app.switch_mode('logs')", show=False),
        Binding("f7", "app.privacy", show=False),
        Binding("f9", "app.settings", show=False),
    ]

    class Submitted(Message):
        """A prompt was sent; its text may be empty."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, placeholder: str = "") -> None:
        super().__init__(
            placeholder=placeholder,
            show_line_numbers=False,
            soft_wrap=True,
            tab_behavior="focus",
            highlight_cursor_line=False,
            compact=True,
            id="prompt",
        )
        self._history: list[str] = []
        self._place = 0

    def action_send(self) -> None:
        text = self.text.rstrip()
        if text:
            self._history = [*self._history[-MAX_HISTORY:], text]
        self._place = len(self._history)
        self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        start, end = self.selection
        self._replace_via_keyboard("\n", start, end)

    def action_earlier(self) -> None:
        """On the first line, bring back the previous prompt; else move one line up."""
        if self.cursor_location[0] > 0 or self._place == 0:
            self.action_cursor_up()
            return
        self._bring(self._place - 1)

    def action_later(self) -> None:
        if self.cursor_location[0] < self.document.line_count - 1 or self._place >= len(self._history):
            self.action_cursor_down()
            return
        self._bring(self._place + 1)

    def _bring(self, place: int) -> None:
        self._place = place
        self.load_text(self._history[place] if place < len(self._history) else "")
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        """Handles Enter. A binding with priority would be handled before letters that were typed just before."""
        if event.key == "enter":
            event.prevent_default().stop()
            self.action_send()
            return
        if event.key in ("shift+enter", "alt+enter", "ctrl+j"):
            event.prevent_default().stop()
            self.action_newline()
            return
        await super()._on_key(event)
