"""What this device does for others, and the owner's rules for it."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.gateway import GatewayError
from tui.screens.question import TextQuestion
from tui.session import NodeSession
from tui.snapshot import LendingFacts
from tui.words import bytes_words, count_words

DRAW_S = 0.5
HOURS = "From one hour of the day to another, such as 22-6. Empty: always."
MONTH = "Most gigabytes for others in a month. Empty: no limit."


class LendingScreen(ModalScreen[None]):
    """Shows who asked, and changes the rules."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,l", "close", "Close"),
        Binding("p", "pause", "Pause"),
        Binding("i", "idle", "Only when idle"),
        Binding("h", "hours", "Hours"),
        Binding("m", "month", "Limit"),
        Binding("r", "replicate", "Models of others"),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__()
        self._session = session

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet"):
            yield Static("What this device does for others", classes="sheet-title", markup=False)
            with VerticalScroll(classes="sheet-body"):
                yield Static(id="lending", classes="sheet-text", markup=False)
            foot = "p pause · i only when idle · h hours · m limit of a month · r models of others · Esc closes"
            yield Static(foot, classes="sheet-foot", markup=False)

    def on_mount(self) -> None:
        self.set_interval(DRAW_S, self._draw)
        self._draw()

    @property
    def facts(self) -> LendingFacts:
        return self._session.state.lending

    def _draw(self) -> None:
        self.query_one("#lending", Static).update(lending_text(self.facts, self.size.width < 70))

    @work
    async def action_pause(self) -> None:
        await self._set(paused=not self.facts.paused)

    @work
    async def action_idle(self) -> None:
        await self._set(only_idle=not self.facts.only_idle)

    @work
    async def action_replicate(self) -> None:
        await self._set(replicate=not self.facts.replicates)

    @work
    async def action_hours(self) -> None:
        before = "" if self.facts.hours is None else "{}-{}".format(*self.facts.hours)
        text = await self.app.push_screen_wait(TextQuestion("Hours", HOURS, before, "22-6"))
        if text is None:
            return
        parts = [part.strip() for part in text.split("-")]
        if not text.strip():
            await self._set(hours=None)
        elif len(parts) == 2 and all(part.isdecimal() and len(part) < 3 for part in parts):
            await self._set(hours=[int(part) for part in parts])
        else:
            self.notify(f"{text!r} are not hours: write them like 22-6.", severity="error", markup=False)

    @work
    async def action_month(self) -> None:
        before = "" if self.facts.monthly_bytes is None else f"{self.facts.monthly_bytes / 1e9:g}"
        text = await self.app.push_screen_wait(TextQuestion("Limit of a month", MONTH, before, "50"))
        if text is None:
            return
        try:
            limit = round(float(text) * 1e9) if text.strip() else None
        except (ValueError, OverflowError):
            self.notify(f"{text!r} is not a number of gigabytes.", severity="error", markup=False)
            return
        await self._set(monthly_bytes=limit)

    async def _set(self, **rules: Any) -> None:
        try:
            await self._session.call("lending_set", **rules)
        except GatewayError as exc:
            self.notify(str(exc), severity="error", markup=False)

    def action_close(self) -> None:
        self.dismiss()


def lending_line(facts: LendingFacts) -> str:
    """One line: whether this device computes for others, and for how many it did."""
    now = "computes" if not facts.refusal else "computes nothing"
    asked = count_words(len({one.peer_id for one in facts.borrowers}), "peer")
    why = f" ({facts.refusal})" if facts.refusal else ""
    much = f"{asked} asked, {bytes_words(facts.month_bytes)} this month"
    return f"This device {now} for others{why}: {much} · l shows more"


def lending_text(facts: LendingFacts, narrow: bool) -> Text:
    """Whether it lends, its rules, and a line for every peer and model."""
    lines = ["● It computes for others now." if not facts.refusal else f"○ It computes nothing now: {facts.refusal}."]
    rules = ["only when other programs leave the processors alone"] if facts.only_idle else []
    if facts.hours is not None:
        rules.append("from {} to {} o'clock".format(*facts.hours))
    if facts.monthly_bytes is not None:
        rules.append(f"at most {bytes_words(facts.monthly_bytes)} a month")
    lines.append(f"Rules: {', '.join(rules) or 'always, without a limit'}.")
    lines.append(f"This month: {bytes_words(facts.month_bytes)} received and sent for others.")
    held = "It holds parts of models that members put on the swarm, within --memory."
    lines.append(held if facts.replicates else "It holds no parts of models that members put on the swarm.")
    lines.append("Threads and memory are limited when the node starts: --threads, --memory.\n")
    if not facts.borrowers:
        lines.append("Nobody has asked since the node started.")
    for one in facts.borrowers:
        much = f"{count_words(one.requests, 'request')}, {count_words(one.rows, 'row')}, {bytes_words(one.num_bytes)}"
        lines.append(f"{one.label}  {one.model}{chr(10) if narrow else ''}  {much}")
    return Text("\n".join(lines))
