"""All conversations: go on with one, name it, keep it on the disk, export it, delete it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.archive import markdown
from tui.conversation import Conversation
from tui.screens.question import TextQuestion, YesNoQuestion
from tui.session import NodeSession
from tui.words import count_words

EMPTY = "No conversation yet, or none with these words."


class ConversationsScreen(ModalScreen[Conversation | None]):
    """Returns the conversation to go on with, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        Binding("slash", "search", "Search"),
        Binding("k", "keep", "Keep"),
        Binding("n", "rename", "Name"),
        Binding("e", "export", "Export"),
        Binding("x", "delete", "Delete"),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__()
        self._session = session
        self._found: list[Conversation] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet"):
            yield Static("Conversations", classes="sheet-title", markup=False)
            yield Input(placeholder="/ searches", id="search")
            yield OptionList(id="conversations", markup=False)
            foot = "Enter goes on · n name · k keep on disk · e export · x delete · Esc closes"
            yield Static(foot, classes="sheet-foot", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._fill()

    @on(Input.Changed, "#search")
    def _fill(self) -> None:
        self._found = self._session.archive.matching(self.query_one("#search", Input).value)
        options = self.query_one(OptionList)
        place = options.highlighted or 0
        options.clear_options()
        options.add_options([Option(_line(one), id=one.id) for one in self._found] or [Option(EMPTY, disabled=True)])
        options.highlighted = min(place, len(self._found) - 1) if self._found else None

    @on(Input.Submitted, "#search")
    def action_list(self) -> None:
        """Go to the list."""
        self.query_one(OptionList).focus()

    @on(OptionList.OptionSelected)
    def _go_on(self) -> None:
        if self.chosen is not None:
            self.dismiss(self.chosen)

    @property
    def chosen(self) -> Conversation | None:
        """The highlighted conversation."""
        place = self.query_one(OptionList).highlighted
        return self._found[place] if place is not None and place < len(self._found) else None

    def action_search(self) -> None:
        self.query_one("#search").focus()

    def action_keep(self) -> None:
        """Keep the chosen conversation on the disk, or no longer."""
        chosen, archive = self.chosen, self._session.archive
        if chosen is None:
            return
        try:
            if chosen.kept:
                archive.keep_no_more(chosen)
            else:
                archive.keep(chosen)
        except OSError as exc:
            self.notify(f"it could not be done: {exc.strerror}", severity="error", markup=False)
        self._fill()

    @work
    async def action_rename(self) -> None:
        chosen = self.chosen
        if chosen is None:
            return
        about = "Empty: its first prompt is its name."
        title = await self.app.push_screen_wait(TextQuestion("Name this conversation", about, chosen.title))
        if title is not None:
            chosen.title = title.strip()
            self._write(chosen)
            self._fill()

    @work
    async def action_export(self) -> None:
        """Write the chosen conversation as Markdown."""
        chosen = self.chosen
        if chosen is None:
            return
        about = "Write it as Markdown to this file. Everybody who can read the file can read the conversation."
        name = await self.app.push_screen_wait(TextQuestion("Export", about, f"{Path.cwd()}/{_file_name(chosen)}"))
        if not name:
            return
        path = Path(name).expanduser()
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(markdown(chosen))
        except OSError as exc:
            reason = "a file of this name exists" if isinstance(exc, FileExistsError) else exc.strerror
            self.notify(f"{path}: {reason}", title="Not exported", severity="error", markup=False)
        else:
            self.notify(str(path), title="Exported", markup=False)

    @work
    async def action_delete(self) -> None:
        chosen = self.chosen
        if chosen is None:
            return
        about = f"«{chosen.heading}» is forgotten, on the disk too."
        if await self.app.push_screen_wait(YesNoQuestion("Delete this conversation?", about, "Delete", "Leave")):
            try:
                await self._session.forget_conversation(chosen)
            except OSError as exc:
                self.notify(f"it could not be deleted: {exc.strerror}", severity="error", markup=False)
            self._fill()

    def _write(self, conversation: Conversation) -> None:
        if conversation.kept:
            try:
                self._session.archive.keep(conversation)
            except OSError as exc:
                self.notify(f"it could not be written: {exc.strerror}", severity="error", markup=False)

    def action_close(self) -> None:
        self.dismiss(None)


def _line(one: Conversation) -> str:
    when = time.strftime("%d %b %H:%M", time.localtime(one.changed_at))
    where = "kept on disk" if one.kept else "in memory"
    return f"{one.heading}\n  {when} · {count_words(len(one.turns), 'turn')} · {where}"


def _file_name(one: Conversation) -> str:
    words = "".join(character if character.isalnum() else "-" for character in one.heading.casefold())
    return f"{'-'.join(filter(None, words.split('-')))[:40] or 'conversation'}.md"
