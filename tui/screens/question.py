"""Small windows that ask: for a line of text, for one of some things, or for yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static


class TextQuestion(ModalScreen[str | None]):
    """Returns the text that was entered, which may be empty, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close")]

    def __init__(self, title: str, about: str, value: str = "", placeholder: str = "") -> None:
        super().__init__()
        self._heading, self._about = title, about
        self._value, self._placeholder = value, placeholder

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet small"):
            yield Static(self._heading, classes="sheet-title", markup=False)
            yield Static(self._about, classes="sheet-text", markup=False)
            yield Input(self._value, placeholder=self._placeholder)
            yield Static("Enter · Esc closes", classes="sheet-foot", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value)

    def action_close(self) -> None:
        self.dismiss(None)


class ChoiceQuestion(ModalScreen[str | None]):
    """Returns the key of what was chosen, or None. The letter before the last bracket of a label chooses it too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, title: str, about: str, choices: Mapping[str, str]) -> None:
        super().__init__()
        self._heading, self._about, self._choices = title, about, choices

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet small"):
            yield Static(self._heading, classes="sheet-title", markup=False)
            yield Static(self._about, classes="sheet-text", markup=False)
            with Horizontal(classes="buttons"):
                for key, label in self._choices.items():
                    yield Button(label, id=key)

    def on_mount(self) -> None:
        self.query(Button).first().focus()

    def on_key(self, event: events.Key) -> None:
        chosen = [key for key, label in self._choices.items() if label.endswith(f"({event.key})")]
        if chosen:
            event.stop()
            self.dismiss(chosen[0])

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id)

    def action_close(self) -> None:
        self.dismiss(None)


class YesNoQuestion(ModalScreen[bool]):
    """Returns whether the answer is yes. Esc is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, title: str, about: str, yes: str, no: str = "No") -> None:
        super().__init__()
        self._heading, self._about = title, about
        self._yes, self._no = yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet small"):
            yield Static(self._heading, classes="sheet-title", markup=False)
            yield Static(self._about, classes="sheet-text", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(f"{self._yes} (y)", id="yes")
                yield Button(f"{self._no} (n)", id="no")

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
