"""A screen to choose the privacy mode of the next prompts."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.words import COULD_READ, MODES


class PrivacyScreen(ModalScreen[str | None]):
    """Returns the chosen mode, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,f7", "close", "Close")]

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet small"):
            yield Static("Privacy of the next prompts", classes="sheet-title", markup=False)
            yield OptionList(*(self._option(mode) for mode in MODES), id="modes")
            yield Static("Enter chooses · Esc closes", classes="sheet-foot", markup=False)

    def _option(self, mode: str) -> Option:
        sign = "●" if mode == self._current else "○"
        return Option(
            Content.from_markup(
                "$sign [b]$mode[/]  $what\n     [dim]who could read it:[/] $who",
                sign=sign,
                mode=mode,
                what=MODES[mode],
                who=COULD_READ[mode],
            ),
            id=mode,
        )

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.highlighted = list(MODES).index(self._current) if self._current in MODES else 0
        options.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_close(self) -> None:
        self.dismiss(None)
