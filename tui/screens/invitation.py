"""An invitation on the screen: its line, its QR code, and what it means to hand it over."""

from __future__ import annotations

import time
from typing import ClassVar

import segno
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.snapshot import Fields

QR_BORDER = 2


class InvitationScreen(ModalScreen[None]):
    """Shows what the operation `invite` returned."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "close", "Close"),
        Binding("c,ctrl+y", "copy", "Copy"),
    ]

    def __init__(self, invited: Fields) -> None:
        super().__init__()
        self._line = invited.text("line")
        self._ends = invited.number("expires")
        self._note = invited.text("note")

    def compose(self) -> ComposeResult:
        ends = time.strftime("%A %d %B, %H:%M", time.localtime(self._ends))
        with Vertical(classes="sheet"):
            yield Static("Invitation", classes="sheet-title", markup=False)
            with VerticalScroll(classes="sheet-body"):
                yield Static(
                    "On the other device: install Kekahyde, start `kekahyde-node`, press F3 and j, paste this line. "
                    "Or there, in a terminal: kekahyde-node join 'LINE'",
                    classes="sheet-text",
                    markup=False,
                )
                yield Static(self._line, classes="sheet-text line", markup=False)
                yield Static(
                    f"Others can join with it until {ends}. It holds your swarm's key, and the key stays valid after "
                    "that: whoever reads the line can come in. Give it only to people whom you let in.",
                    classes="sheet-text",
                    markup=False,
                )
                if self._note:
                    yield Static(f"Note: {self._note}", classes="sheet-text", markup=False)
                yield Static(qr_text(self._line), id="qr", markup=False)
            yield Static("c copies the line · ↓ the QR code · Esc closes", classes="sheet-foot", markup=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._line)
        self.notify("The line was given to the terminal's clipboard.", markup=False)

    def action_close(self) -> None:
        self.dismiss()


def qr_text(line: str) -> str:
    """A QR code of half blocks, two rows in one line of text, dark on light."""
    code = segno.make(line, error="l", micro=False)
    rows = [list(row) for row in code.matrix_iter(border=QR_BORDER)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    return "\n".join(
        "".join(blocks[bool(up), bool(down)] for up, down in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
