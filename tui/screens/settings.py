"""Settings of the next prompts: the system prompt, the temperature, the length of an answer."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from tui.session import NodeSession
from tui.settings import MAX_SYSTEM_CHARACTERS, MAX_TEMPERATURE


class SettingsScreen(ModalScreen[None]):
    """Changes the settings when it is closed with Enter or ctrl+s; Esc leaves them as they are."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save"),
        Binding("escape,f9", "close", "Close"),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__()
        self._session = session

    def compose(self) -> ComposeResult:
        settings = self._session.settings
        temperature = "" if settings.temperature is None else f"{settings.temperature:g}"
        length = "" if settings.max_tokens is None else str(settings.max_tokens)
        with Vertical(classes="sheet small"):
            yield Static("Settings of the next prompts", classes="sheet-title", markup=False)
            with VerticalScroll(classes="sheet-body"):
                yield Static("System prompt (for models that chat)", classes="sheet-text", markup=False)
                yield TextArea(settings.system, id="system", tab_behavior="focus", compact=True)
                yield Static("Temperature, 0 to 2; empty: the model's own", classes="sheet-text", markup=False)
                yield Input(temperature, id="temperature", placeholder="the model's own")
                yield Static("Most tokens in an answer; empty: the node's own", classes="sheet-text", markup=False)
                yield Input(length, id="max-tokens", placeholder="the node's own")
                yield Static("", id="problem", classes="sheet-text", markup=False)
            foot = "ctrl+s or Enter saves · Tab goes on · Esc closes · kept in interface.json"
            yield Static(foot, classes="sheet-foot", markup=False)

    def on_mount(self) -> None:
        self.query_one("#system").focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_save()

    def action_save(self) -> None:
        """Store the settings; a wrong one is named and nothing is stored."""
        try:
            fields = {
                "system": self._system(),
                "temperature": _number(self.query_one("#temperature", Input).value, MAX_TEMPERATURE),
                "max_tokens": _count(self.query_one("#max-tokens", Input).value),
            }
        except ValueError as exc:
            self.query_one("#problem", Static).update(f"✗ {exc}")
            return
        self._session.choose(**fields)
        self.notify("From the next prompt on.", title="Settings", markup=False)
        self.dismiss()

    def _system(self) -> str:
        text = self.query_one("#system", TextArea).text.strip()
        if len(text) > MAX_SYSTEM_CHARACTERS:
            raise ValueError(f"the system prompt has {len(text)} characters; at most {MAX_SYSTEM_CHARACTERS}")
        return text

    def action_close(self) -> None:
        self.dismiss()


def _number(text: str, most: float) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ValueError(f"the temperature {text.strip()!r} is not a number from 0 to {most:g}")
    return value


def _count(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"the length {text.strip()!r} is not a whole number of tokens")
    return int(text)
