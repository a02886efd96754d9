"""Drives the interface in tests: against the twin of a gateway, with a clock that the test moves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from textual._context import visible_screen_stack
from textual.events import Paste
from textual.pilot import Pilot, WaitForScreenTimeout
from textual.widgets import Input

from scripts.harness.gateway_twin import GatewayTwin
from tui.app import KekahydeApp
from tui.launcher import NodeLauncher
from tui.widgets.prompt import Prompt

DEADLINE_S = 20.0
WIDE = (100, 30)


class Clock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Driver:
    """An interface that runs, and the twin that it talks to."""

    app: KekahydeApp
    pilot: Pilot[str | None]
    twin: GatewayTwin

    @property
    def screen(self) -> str:
        """What a person sees, as lines of text."""
        # What lies below a sheet is drawn into the sheet and kept: drawn without this, it would be kept blank.
        visible_screen_stack.set(self.app._background_screens)
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; fails with the screen where it never does."""
        deadline = monotonic() + DEADLINE_S
        while not condition():
            assert monotonic() < deadline, f"it never came to hold; the screen was\n{self.screen}"
            await self.pilot.pause(0.02)

    async def sees(self, *texts: str) -> None:
        """Wait until all these texts are visible."""
        await self.until(lambda: all(text in self.screen for text in texts))

    async def keys(self, *keys: str) -> None:
        """Press keys; what comes of them is waited for by whoever looks for it.

        The pilot also waits until every widget has said that it is idle. A widget that is being taken away when it is
        asked never says so.
        """
        with suppress(WaitForScreenTimeout):
            await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Put a text where the cursor is, as a paste does."""
        self.app.post_message(Paste(text))
        await self.until(lambda: text in _text_of(self.app.focused))


def _text_of(widget: object) -> str:
    return widget.text if isinstance(widget, Prompt) else widget.value if isinstance(widget, Input) else ""


@asynccontextmanager
async def interface(
    data_dir: Path,
    twin: GatewayTwin | None = None,
    size: tuple[int, int] = WIDE,
    clock: Callable[[], float] = monotonic,
) -> AsyncIterator[Driver]:
    """An interface that is connected to a twin and knows its state."""
    twin = twin or GatewayTwin()
    async with twin.serve(data_dir):
        app = KekahydeApp(NodeLauncher(data_dir, None), clock)
        app.animation_level = "none"
        async with app.run_test(size=size, tooltips=False, notifications=True) as pilot:
            driver = Driver(app, pilot, twin)
            await driver.until(lambda: app.session.state.node.peer_id)
            yield driver


def normal_svg(svg: str) -> str:
    """A picture without the names that a run gives its parts."""
    return re.sub(r"terminal-\d+", "terminal", svg)


async def finished(driver: Driver) -> None:
    """Returns when the last answer is whole, with its receipt."""
    await driver.until(lambda: driver.app.session.answer and not driver.app.session.busy)
    await driver.until(lambda: driver.app.session.answer and driver.app.session.answer.receipt is not None)
