"""Shown if the node could not be started, or ended: why, and what to do."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class TroubleScreen(ModalScreen[bool]):
    """Returns True if the user wants to try again, False to quit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "answer(True)", "Try again"),
        Binding("q,escape", "answer(False)", "Quit"),
    ]

    def __init__(self, title: str, reason: str) -> None:
        super().__init__()
        self._heading = title
        self.reason = reason

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet trouble"):
            yield Static(f"✗ {self._heading}", classes="sheet-title", markup=False)
            with VerticalScroll(classes="sheet-body"):
                yield Static(self.reason, markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Try again (r)", id="again", variant="primary")
                yield Button("Quit (q)", id="quit")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "again")

    def action_answer(self, again: bool) -> None:
        self.dismiss(again)
