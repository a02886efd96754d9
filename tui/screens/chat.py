"""Chat: the conversation and the prompt."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui.conversation import Answer, AnswerStatus, Turn
from tui.screens.base import NodeScreen
from tui.screens.commands import action_of, is_command, unknown
from tui.screens.conversations import ConversationsScreen
from tui.screens.receipt import ReceiptScreen
from tui.segments import code_blocks
from tui.session import TOO_LONG, NodeSession
from tui.widgets.answer_lines import AnswerLines, Workbench
from tui.widgets.answer_writer import AnswerFoot, AnswerWriter, finished_widgets
from tui.widgets.conversation_view import SHOWN_TURNS, ConversationView, PromptView
from tui.widgets.prompt import Prompt
from tui.widgets.welcome import CHAT_EXAMPLES, STORY_EXAMPLES, Welcome
from tui.words import count_words


class ChatScreen(NodeScreen):
    """Prompts and answers."""

    MODE = "chat"
    ABOUT = (
        "Type and press **Enter**; **ctrl+j** begins a new line. **Esc** stops the answer and keeps what is there. "
        "If you press Enter without typing, a model that continues text continues it. **Up** brings back earlier "
        "prompts, **Page up** scrolls, **ctrl+end** returns to the end."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="chat.stop", tooltip="Stop the answer, keep its text"),
        Binding("ctrl+r", "regenerate", "Again", id="chat.regenerate", tooltip="Answer the last prompt again"),
        Binding("ctrl+y", "copy_answer", "Copy", id="chat.copy", tooltip="Copy the last answer"),
        Binding("ctrl+o", "copy_code", "Copy code", id="chat.copy_code", tooltip="Copy its last code block"),
        Binding("ctrl+t", "drop_oldest", "Drop oldest", id="chat.drop", tooltip="Send the oldest turns no longer"),
        Binding("ctrl+n", "forget", "New", id="chat.new", tooltip="Begin a new conversation; this one stays"),
        Binding("ctrl+l", "conversations", "List", id="chat.list", tooltip="All conversations"),
        Binding("alt+left", "previous_answer", show=False),
        Binding("alt+right", "next_answer", show=False),
        Binding("f8", "receipt", "Who saw what", id="chat.receipt", tooltip="The receipt of the last answer"),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("ctrl+home", "top", "To the beginning", show=False),
        Binding("ctrl+end", "end", "To the end", show=False),
    ]

    def __init__(self, session: NodeSession) -> None:
        super().__init__(session)
        self._writers: dict[str, AnswerWriter] = {}
        self._groups: list[list[Widget]] = []
        """The widgets of each shown turn; the widgets of an answer's segments are between its prompt and its foot."""
        self._hidden = 0
        """Number of turns before the first shown one."""

    def body(self) -> ComposeResult:
        with ConversationView():
            yield Workbench()
            yield Welcome()
            earlier = Static(id="earlier", markup=False)
            earlier.display = False
            yield earlier
        yield Prompt()

    def on_mount(self) -> None:
        self.query_one(Prompt).focus()

    @property
    def view(self) -> ConversationView:
        return self.query_one(ConversationView)

    def show(self, topic: str) -> None:
        super().show(topic)
        if topic in ("state", "link"):
            self.query_one(Welcome).show(self.session)
            self.query_one(Prompt).placeholder = self._placeholder()

    def _placeholder(self) -> str:
        model = self.session.model
        if model is not None and model.chat:
            return "Ask something; Enter sends"
        if self.session.conversation.last is None:
            return "Begin a story; Enter sends"
        if self._story_has_ended():
            return "Type what happens next; ctrl+r tells it again, ctrl+n starts a new one"
        return "Enter continues the story; or type what happens next"

    def follow(self, answer: Answer) -> None:
        """Show a change of the answer."""
        writer = self._writers.get(answer.request)
        if writer is not None:
            writer.wake()
        if answer.ended:
            self.query_one(Prompt).placeholder = self._placeholder()

    @on(Prompt.Submitted)
    def _submit(self, event: Prompt.Submitted) -> None:
        session, prompt = self.session, event.text
        if is_command(prompt):
            self.run_worker(self._command(prompt))
            return
        chat = session.model is not None and session.model.chat
        if session.busy:
            self.notify("An answer is being written: Esc stops it.", markup=False)
            return
        if not prompt.strip() and session.conversation.last is None:
            prompt = (CHAT_EXAMPLES if chat else STORY_EXAMPLES)[0]
        elif not prompt.strip() and (chat or self._story_has_ended()):
            if not chat:
                self.notify("The story has ended: type what happens next, or ctrl+r for another.", markup=False)
            return
        self.query_one(Prompt).load_text("")
        self._begin(session.ask(prompt))
        self.query_one(Prompt).placeholder = self._placeholder()

    async def _command(self, prompt: str) -> None:
        action = action_of(prompt)
        if action is None:
            self.notify(unknown(prompt), severity="warning", timeout=10, markup=False)
            return
        self.query_one(Prompt).load_text("")
        await self.run_action(action)

    def _story_has_ended(self) -> bool:
        answer = self.session.answer
        return answer is not None and answer.status is AnswerStatus.DONE and answer.finish_reason == "stop"

    def _begin(self, turn: Turn) -> None:
        self.query_one(Welcome).display = False
        for writer in self._writers.values():
            writer.foot.show(writer.answer, newest=False)
        self._writers = {key: writer for key, writer in self._writers.items() if not writer.answer.ended}
        writer = self._writers[turn.answer.request] = AnswerWriter(self.view, turn)
        self.run_worker(self._write(turn, writer), group=turn.answer.request, exit_on_error=True)

    async def _write(self, turn: Turn, writer: AnswerWriter) -> None:
        group: list[Widget] = []
        self._groups.append(group)
        if turn.prompt:
            prompt = PromptView(turn.prompt)
            group.append(prompt)
            await self.view.mount(prompt)
        group += [writer.lines, writer.foot]
        self.view.anchor()
        await self._hide_oldest()
        await writer.run()

    async def _hide_oldest(self) -> None:
        while len(self._groups) > 2 * SHOWN_TURNS:
            first_of_rest = self._groups[1][0]
            self._groups.pop(0)
            self._hidden += 1
            children = list(self.view.children)
            await self.view.remove_children(
                [
                    child
                    for child in children[: children.index(first_of_rest)]
                    if isinstance(child, (PromptView, AnswerLines, AnswerFoot))
                ]
            )
        self._show_earlier()

    def _show_earlier(self) -> None:
        earlier = self.query_one("#earlier", Static)
        earlier.display = self._hidden > 0
        text = f"[@click=screen.earlier]▲ {self._hidden} earlier turns: click here or press ctrl+home twice[/]"
        earlier.update(Content.from_markup(text))

    async def action_earlier(self) -> None:
        """Show earlier turns again."""
        count = min(SHOWN_TURNS, self._hidden)
        start = self._hidden - count
        widgets: list[Widget] = []
        groups: list[list[Widget]] = []
        for turn in self.session.conversation.turns[start : self._hidden]:
            group = finished_widgets(turn, self.view.size.width)
            groups.append(group)
            widgets += group
        self._hidden = start
        self._groups = groups + self._groups
        await self.view.mount(*widgets, after=self.query_one("#earlier"))
        self._show_earlier()

    async def action_regenerate(self) -> None:
        """Answer the newest prompt again; the earlier answer stays beside the new one."""
        turn = self.session.conversation.last
        if turn is None:
            self.notify("There is no prompt to answer again.", markup=False)
            return
        self.workers.cancel_group(self, turn.answer.request)
        self.session.regenerate()
        await self._remove_newest()
        self._begin(turn)

    async def _remove_newest(self) -> None:
        if self._groups:
            group = self._groups.pop()
            children = list(self.view.children)
            await self.view.remove_children(children[children.index(group[0]) :])

    async def action_previous_answer(self) -> None:
        """Show the answer to the newest prompt that came before the shown one."""
        await self._show_other_answer(-1)

    async def action_next_answer(self) -> None:
        """Show the answer to the newest prompt that came after the shown one."""
        await self._show_other_answer(1)

    async def _show_other_answer(self, step: int) -> None:
        turn = self.session.conversation.last
        if turn is None or self.session.busy or not turn.show(step):
            return
        self._writers.clear()
        await self._remove_newest()
        group = finished_widgets(turn, self.view.size.width, newest=True)
        self._groups.append(group)
        await self.view.mount(*group)
        self.view.call_after_refresh(self.view.look)
        self.session.note_conversation()
        self.refresh_bindings()

    async def action_drop_oldest(self) -> None:
        """Send the older half of the turns no longer, and answer the newest prompt again."""
        turn = self.session.conversation.last
        if turn is None or self.session.busy:
            return
        request = turn.answer.request
        if self.session.drop_oldest() is None:
            self.notify("There is no older turn to leave out.", markup=False)
            return
        self.workers.cancel_group(self, request)
        await self._remove_newest()
        self._begin(turn)
        left_out = sum(one.left_out for one in self.session.conversation.turns)
        self.notify(f"The model no longer reads the first {count_words(left_out, 'turn')}.", markup=False)

    def action_keep(self) -> None:
        """Keep this conversation on the disk, or no longer."""
        conversation, archive = self.session.conversation, self.session.archive
        if not conversation.turns:
            self.notify("There is no conversation yet.", markup=False)
            return
        try:
            if conversation.kept:
                archive.keep_no_more(conversation)
                self.notify("It is no longer on the disk; it is kept in memory.", markup=False)
            else:
                archive.keep(conversation)
                self.notify("It is kept on the disk from now on; /keep again takes it off.", markup=False)
        except OSError as exc:
            self.notify(f"it could not be written: {exc.strerror}", severity="error", markup=False)

    @work
    async def action_conversations(self) -> None:
        """Show all conversations; go on with the chosen one."""
        self.session.note_conversation()
        chosen = await self.app.push_screen_wait(ConversationsScreen(self.session))
        if chosen is not None and chosen is not self.session.conversation:
            self.session.begin(chosen)

    def action_stop(self) -> None:
        self.session.stop()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide keys that would do nothing now."""
        if action == "stop":
            return self.session.busy
        if action in ("regenerate", "copy_code"):
            return self.session.answer is not None
        if action == "drop_oldest" and self.session.answer is not None:
            return self.session.answer.code == TOO_LONG
        if action == "drop_oldest":
            return False
        if action == "receipt" and not parameters:
            return self.session.answer is not None and bool(self.session.answer.receipt)
        return True

    async def action_forget(self) -> None:
        """Begin a new conversation; the old one stays in the list."""
        self.session.begin()

    async def show_conversation(self) -> None:
        """Draw the session's conversation from its beginning."""
        for writer in self._writers.values():
            self.workers.cancel_group(self, writer.answer.request)
        self._writers.clear()
        await self.view.remove_children("PromptView, AnswerLines, ModelMarkdown, AnswerFoot")
        turns, width = self.session.conversation.turns, self.view.size.width
        self._hidden = max(0, len(turns) - SHOWN_TURNS)
        shown = turns[self._hidden :]
        self._groups = [finished_widgets(turn, width, newest=turn is turns[-1]) for turn in shown]
        await self.view.mount(*(widget for group in self._groups for widget in group))
        self._show_earlier()
        self.query_one(Welcome).display = not turns
        self.query_one(Prompt).placeholder = self._placeholder()
        self.view.scroll_end(animate=False)
        self.view.call_after_refresh(self.view.look)
        self.refresh_bindings()

    def action_example(self, number: int) -> None:
        chat = self.session.model is not None and self.session.model.chat
        prompt = self.query_one(Prompt)
        prompt.load_text((CHAT_EXAMPLES if chat else STORY_EXAMPLES)[number])
        prompt.move_cursor(prompt.document.end)
        prompt.focus()

    def _answer(self, request: str) -> Answer | None:
        if not request:
            return self.session.answer
        turns = self.session.conversation.turns
        return next((turn.answer for turn in turns if turn.answer.request == request), None)

    async def action_copy_answer(self, request: str = "") -> None:
        answer = self._answer(request)
        await self.copy(answer.text if answer else "", "the answer")

    async def action_copy_code(self) -> None:
        answer = self._answer("")
        blocks = code_blocks(answer.text) if answer else []
        await self.copy(blocks[-1] if blocks else "", "the code block")

    async def copy(self, text: str, what: str) -> None:
        """Put the text on the clipboard and say so."""
        if not text:
            self.notify(f"There is nothing to copy: {what} is empty.", markup=False)
            return
        self.app.copy_to_clipboard(text)
        self.notify(f"Copied {what}, {len(text)} characters.", markup=False)

    def action_receipt(self, request: str = "") -> None:
        answer = self._answer(request)
        if answer is None or not answer.receipt:
            self.notify("There is no receipt yet: it comes at the end of an answer.", markup=False)
            return
        self.app.push_screen(ReceiptScreen(answer.receipt, answer.plan))

    def action_page(self, direction: int) -> None:
        view = self.view
        view.scroll_relative(y=direction * max(1, view.size.height - 2), animate=False)

    async def action_top(self) -> None:
        if self.view.scroll_y == 0 and self._hidden:
            await self.action_earlier()
        self.view.scroll_home(animate=False)

    def action_end(self) -> None:
        self.view.scroll_end(animate=False)
