"""The application: modes, keys, and passing the node's events to screens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from tui.clipboard import copy_by_tool
from tui.launcher import NodeEndedError, NodeLauncher, StartError
from tui.screens.base import NodeScreen
from tui.screens.chat import ChatScreen
from tui.screens.chunks import ChunksScreen
from tui.screens.help import HelpScreen, programs_markdown
from tui.screens.logs import LogsScreen
from tui.screens.models import ModelsScreen
from tui.screens.pairing import PairingScreen
from tui.screens.peers import PeersScreen
from tui.screens.privacy import PrivacyScreen
from tui.screens.question import YesNoQuestion
from tui.screens.settings import SettingsScreen
from tui.screens.sheet import TextScreen
from tui.screens.trouble import TroubleScreen
from tui.session import NodeSession
from tui.theme import DARK, THEMES
from tui.words import MODES, count_words

INTERRUPT_AGAIN_S = 3.0
"""A second ctrl+c within this time quits."""


class KekahydeApp(App[str | None]):
    """The interface. It returns what went wrong if it could not start, else None."""

    TITLE = "Kekahyde"
    CSS_PATH = Path(__file__).parent / "kekahyde.tcss"
    ENABLE_COMMAND_PALETTE = True
    PAUSE_GC_ON_SCROLL = True
    NOTIFICATION_TIMEOUT = 3.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Help", id="help", tooltip="What this screen shows, and every key"),
        Binding("f2", "switch_mode('chat')", "Chat", id="chat", show=False),
        Binding("f3", "switch_mode('peers')", "Peers", id="peers", show=False),
        Binding("f4", "switch_mode('models')", "Models", id="models", show=False),
        Binding("f5", "switch_mode('chunks')", "Chunks", id="chunks", show=False),
        Binding("f6", "switch_mode('logs')", "Logs", id="logs", show=False),
        Binding("f7", "privacy", "Privacy", id="privacy", tooltip="Privacy mode of the next prompts"),
        Binding("f8", "receipt", "Who saw what", id="receipt", show=False),
        Binding("f9", "settings", "Settings", id="settings", tooltip="System prompt, temperature, length"),
        Binding("ctrl+c", "interrupt", show=False, system=True),
        Binding("ctrl+q", "quit", "Quit", id="quit", priority=True, tooltip="Quit; ends the node started here"),
    ]

    def __init__(self, launcher: NodeLauncher, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.session = NodeSession(launcher, clock, self._changed)
        self._chat = ChatScreen(self.session)
        self._screens: dict[str, NodeScreen] = {
            "chat": self._chat,
            "peers": PeersScreen(self.session),
            "models": ModelsScreen(self.session),
            "chunks": ChunksScreen(self.session),
            "logs": LogsScreen(self.session),
        }
        for mode, screen in self._screens.items():
            self.add_mode(mode, partial(_same, screen))
        self._interrupted_at = float("-inf")
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = remembered if (remembered := self.session.settings.theme) in self.available_themes else DARK.name
        self._pairings_shown: set[tuple[str, str]] = set()

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, lambda theme: self.session.file.change(theme=theme.name))
        self.switch_mode("chat")
        self.run_worker(self._stay_connected(), group="link", exclusive=True)

    async def _stay_connected(self) -> None:
        """Find or start the node and follow it; if that fails, say why and offer to try again."""
        while True:
            try:
                await self.session.run()
            except StartError as exc:
                title = "The node has ended" if isinstance(exc, NodeEndedError) else "The node did not start"
                reason = str(exc)
            if not await self.push_screen_wait(TroubleScreen(title, reason)):
                self.exit(reason)
                return

    def _changed(self, topic: str, subject: Any) -> None:
        if not self.is_running:
            return
        if topic in ("answer", "token") and self._chat.is_mounted:
            self._chat.follow(subject)
        if topic == "token":
            return
        if topic == "answer" and self._chat.is_mounted:
            self._chat.refresh_bindings()
        if topic == "conversation" and self._chat.is_mounted:
            self._chat.run_worker(self._chat.show_conversation(), group="conversation", exclusive=True)
        screen = self.screen_stack[0] if self._screen_stack else None
        if topic == "note" and screen is not self._chat:
            self.notify(subject, title="Note", severity="warning", markup=False)
        if isinstance(screen, NodeScreen) and screen.is_mounted:
            screen.show(topic)
        if topic == "state":
            self._show_pairings()

    def _show_pairings(self) -> None:
        """Open a window for a device that asks to be paired, and again when its six digits have come."""
        attempts = self.session.state.pairings
        self._pairings_shown &= {(one.peer_id, one.state) for one in attempts}
        for one in attempts:
            wants = one.state in ("offered", "comparing", "confirmed there")
            if not wants or (one.peer_id, one.state) in self._pairings_shown:
                continue
            self._pairings_shown.add((one.peer_id, one.state))
            if not any(isinstance(screen, PairingScreen) for screen in self.screen_stack):
                self.push_screen(PairingScreen(self.session, one.peer_id, one.label))

    def copy_to_clipboard(self, text: str) -> None:
        """Copy with the terminal's escape code, and with the desktop's tool if there is one."""
        super().copy_to_clipboard(text)
        if not self.is_web:
            self.run_worker(copy_by_tool(text), group="copy", exclusive=True)

    def action_help(self) -> None:
        screen = self.screen_stack[0]
        if isinstance(screen, NodeScreen):
            self.push_screen(HelpScreen(screen.MODE, screen.ABOUT, self.session.state.node.gateway))

    def action_privacy(self) -> None:
        self.push_screen(PrivacyScreen(self.session.privacy), self._chosen)

    def action_programs(self) -> None:
        self.push_screen(TextScreen("Programs", programs_markdown(self.session.state.node.gateway)))

    def action_settings(self) -> None:
        self.push_screen(SettingsScreen(self.session))

    def _chosen(self, mode: str | None) -> None:
        if mode:
            self.session.choose(privacy=mode)
            self.notify(f"{mode}: {MODES[mode]}", title="From the next prompt on", markup=False)

    def action_interrupt(self) -> None:
        """ctrl+c copies the selection; without one it stops the answer; without an answer it quits when pressed
        again."""
        selected = self.screen.get_selected_text()
        if selected:
            self.copy_to_clipboard(selected)
            self.notify(f"Copied {len(selected)} characters.", markup=False)
            return
        if self.session.stop():
            return
        now = self.session.clock()
        if now - self._interrupted_at < INTERRUPT_AGAIN_S:
            self.exit()
            return
        self._interrupted_at = now
        self.notify("ctrl+c again quits (or ctrl+q at any time).", markup=False)

    @work
    async def action_leave(self) -> None:
        """`q`: quit, but ask first if conversations that are only in memory would be lost with the node."""
        session = self.session
        lost = [one for one in session.archive.all() if not one.kept]
        if lost and session.launcher.pid is not None:
            about = (
                f"{count_words(len(lost), 'conversation')} of this session will be forgotten. Esc stays; ctrl+l "
                "shows them, and keeps on the disk what you want to keep."
            )
            if not await self.push_screen_wait(YesNoQuestion("Quit?", about, "Quit", "Stay")):
                return
        self.exit()

    async def _act_on(self, mode: str, act: str) -> None:
        """Go to a screen and do what one of its keys does."""
        self.switch_mode(mode)
        await self._screens[mode].run_action(act)

    def action_receipt(self) -> None:
        """The receipt of the last answer, from any screen."""
        self._chat.action_receipt()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """A palette command for everything that a key does."""
        yield from super().get_system_commands(screen)
        for mode, title in (("chat", "Chat"), ("peers", "Peers"), ("models", "Models"), ("chunks", "Chunks")):
            yield SystemCommand(f"View: {title}", f"Go to {title}", partial(self.switch_mode, mode))
        yield SystemCommand("View: Logs", "Go to Logs", partial(self.switch_mode, "logs"))
        for mode, words in MODES.items():
            yield SystemCommand(f"Privacy: {mode}", words, partial(self._chosen, mode))
        for model in self.session.state.models:
            if model.state == "ready":
                choose = partial(self.session.choose, model=model.name)
                yield SystemCommand(f"Model: {model.name}", "Answers the next prompts", choose)
        for title, about, act in (
            ("Swarm: invite a device", "A line with which another device joins", "invite"),
            ("Swarm: join", "Enter a swarm with an invitation", "join"),
            ("Swarm: what this device does for others", "Pause, hours, limits", "lending"),
            ("Model: fetch", "From Hugging Face or from peers", "pull"),
        ):
            yield SystemCommand(title, about, partial(self._act_on, "models" if act == "pull" else "peers", act))
        yield SystemCommand("Programs", "The node's address for other programs", self.action_programs)
        yield SystemCommand("Settings", "System prompt, temperature, length (F9)", self.action_settings)
        chat = self._chat
        yield SystemCommand("Answer: stop", "Keep the text so far (Esc)", chat.action_stop)
        yield SystemCommand("Answer: again", "Answer the last prompt again (ctrl+r)", chat.action_regenerate)
        yield SystemCommand("Answer: copy", "Copy the last answer (ctrl+y)", chat.action_copy_answer)
        yield SystemCommand("Answer: copy code", "Copy its last code block (ctrl+o)", chat.action_copy_code)
        yield SystemCommand("Answer: who saw what", "The receipt (F8)", chat.action_receipt)
        yield SystemCommand("Conversation: new", "The old one stays in the list (ctrl+n)", chat.action_forget)
        yield SystemCommand("Conversation: list", "Search, go on, name, export (ctrl+l)", chat.action_conversations)
        yield SystemCommand("Conversation: keep", "On the disk, or no longer (/keep)", chat.action_keep)


def _same(screen: NodeScreen) -> NodeScreen:
    return screen
