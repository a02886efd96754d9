"""Pairing with another device of yours: both screens show six digits, and you compare them."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Checkbox, Static

from tui.gateway import GatewayError
from tui.session import NodeSession
from tui.snapshot import PairingFacts

POLL_S = 0.2
READS = "It may read my prompts (trusted, and auto)"


class PairingScreen(ModalScreen[None]):
    """Follows one attempt with one device, from the first question to its end."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", "Yes"),
        Binding("n", "no", "No"),
        Binding("escape", "close", "Close"),
    ]

    def __init__(self, session: NodeSession, peer_id: str, label: str) -> None:
        super().__init__()
        self._session = session
        self._peer_id, self._label = peer_id, label
        self._busy = False
        self._over = ""
        """Why it ended, once it has; it stays on the screen until it is closed."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet small"):
            yield Static(f"Pair with {self._label}", classes="sheet-title", markup=False)
            yield Static(id="pairing", classes="sheet-text", markup=False)
            yield Checkbox(READS, id="reads")
            yield Static(id="pairing-foot", classes="sheet-foot", markup=False)

    def on_mount(self) -> None:
        self.set_interval(POLL_S, self._draw)
        self._draw()

    @property
    def attempt(self) -> PairingFacts | None:
        """The attempt with this device."""
        found = [one for one in self._session.state.pairings if one.peer_id == self._peer_id]
        return found[-1] if found else None

    def _draw(self) -> None:
        attempt = self.attempt
        text, foot = self._words(attempt)
        self.query_one("#pairing", Static).update(text)
        self.query_one("#pairing-foot", Static).update(foot)
        self.query_one(Checkbox).display = attempt is not None and attempt.state in ("comparing", "confirmed there")

    def _words(self, attempt: PairingFacts | None) -> tuple[str, str]:
        waiting = "Esc hides this window; it comes back when the other device answers"
        if self._over:
            return self._over, "Esc closes"
        if attempt is None:
            return "Asking your node …", "Esc closes"
        spaced = f"{attempt.code[:3]} {attempt.code[3:]}"
        match attempt.state:
            case "offered":
                return (
                    f"{self._label} asks to be paired with this device.\n\n"
                    "A paired device makes pads for `strict`. Say yes only to a device of your own that you sit at "
                    "now.",
                    "y accepts · n refuses",
                )
            case "comparing" | "confirmed there":
                return (
                    f"    {spaced}\n\nDoes the other screen show the same six digits? If they differ, somebody is in "
                    "the middle.",
                    "y: they are the same · n: they differ · space: may read prompts",
                )
            case "confirmed here":
                return f"    {spaced}\n\nConfirmed here; waiting for the other device.", waiting
            case "paired":
                return f"✓ Paired with {self._label}.", "Esc closes"
            case "ended":
                return f"✗ Not paired: {attempt.reason or 'it was ended'}.", "Esc closes"
            case _:
                return (
                    f"Waiting for {self._label}: its screen asks whether it wants to be paired. (Without the "
                    "interface there: `kekahyde-node pair`.)",
                    waiting,
                )

    def action_yes(self) -> None:
        attempt = self.attempt
        if attempt is None or self._busy:
            return
        if attempt.state == "offered":
            self.run_worker(self._ask("pair_start"))
        elif attempt.state in ("comparing", "confirmed there"):
            reads = self.query_one(Checkbox).value
            self.run_worker(self._ask("pair_confirm", code=attempt.code, may_read_prompts=reads))

    def action_no(self) -> None:
        attempt = self.attempt
        if attempt is None or self._busy or attempt.over:
            return
        self.run_worker(self._ask("pair_refuse", mismatch=bool(attempt.code)))

    async def _ask(self, op: str, **arguments: object) -> None:
        self._busy = True
        try:
            await self._session.call(op, peer=self._peer_id, **arguments)
        except GatewayError as exc:
            self._over = f"✗ {exc}"
        finally:
            self._busy = False
        self._draw()

    def action_close(self) -> None:
        self.dismiss()
