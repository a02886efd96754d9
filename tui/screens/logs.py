"""Logs: log lines of the node and of this interface, newest at the end."""

from __future__ import annotations

import re
import time
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import RichLog, Static

from tui.screens.base import NodeScreen
from tui.session import MAX_LOG_LINES, LogLine, NodeSession
from tui.snapshot import short_id

DRAW_S = 0.25
QUIET_LEVELS = ("DEBUG", "INFO")
PEER_ID = re.compile(r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}")
EMPTY = "No log lines yet. No prompt, no answer and no key ever appears in a log."


class LogsScreen(NodeScreen):
    """Log lines, and a filter for warnings and errors."""

    MODE = "logs"
    ABOUT = "What the node reports. **f** shows only warnings and errors, **Esc** shows everything again."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "filter", "Only warnings", id="logs.filter", tooltip="Only warnings and errors"),
        Binding("escape", "all", "All", show=False),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__(session)
        self._only_warnings = False
        self._written = 0
        self._seen = 0
        self._due = False

    def body(self) -> ComposeResult:
        yield Static(EMPTY, id="no-logs", classes="empty", markup=False)
        yield RichLog(max_lines=MAX_LOG_LINES, wrap=True, min_width=0, markup=False, highlight=False, id="log")

    def on_mount(self) -> None:
        self._rewrite()

    def show(self, topic: str) -> None:
        super().show(topic)
        if topic in ("log", "state") and not self._due:
            self._due = True
            self.set_timer(DRAW_S, self._add)

    def _add(self) -> None:
        """Write all lines that have come since the last call."""
        self._due = False
        logs = self.session.logs
        new = min(self.session.log_count - self._seen, len(logs))
        self._seen = self.session.log_count
        for line in list(logs)[len(logs) - new :]:
            self._write(line)

    def _rewrite(self) -> None:
        self.query_one(RichLog).clear()
        self._seen = self.session.log_count - len(self.session.logs)
        self._written = 0
        self._add()
        self.query_one("#no-logs").display = not self._written

    def _write(self, line: LogLine) -> None:
        level = line.level.upper()
        if self._only_warnings and level in QUIET_LEVELS:
            return
        self._written += 1
        self.query_one("#no-logs").display = False
        moment = time.strftime("%H:%M:%S", time.localtime(line.time))
        style = {"WARNING": "bold", "ERROR": "bold reverse", "CRITICAL": "bold reverse", "DEBUG": "dim"}.get(
            level, ""
        )
        text = Text.assemble(
            (f"{moment} ", "dim"),
            (f"{level:<7} ", style),
            (f"{line.logger.rpartition('.')[2]}: ", "dim"),
            self._short(line.message),
        )
        self.query_one(RichLog).write(text)

    def _short(self, message: str) -> str:
        """The message with names, or ends, for whole PeerIDs."""
        labels = self.session.board.labels
        return PEER_ID.sub(lambda match: labels.get(match.group()) or short_id(match.group()), message)

    def action_filter(self) -> None:
        self._only_warnings = not self._only_warnings
        self._rewrite()

    def action_all(self) -> None:
        self._only_warnings = False
        self._rewrite()
