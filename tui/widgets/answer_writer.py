"""Writes one answer into the conversation as it grows, no faster than a terminal can draw."""

from __future__ import annotations

import asyncio

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui.conversation import Answer, AnswerStatus, Turn
from tui.segments import Cut, Segmenter, Write, segments_of, split_cuts
from tui.widgets.answer_lines import AnswerLines, Piece, guessed_height, lines_of
from tui.widgets.conversation_view import ConversationView, PromptView
from tui.widgets.markdown import ModelMarkdown
from tui.words import end_line, progress_line, shown_notes

FRAME_S = 0.05
"""Least pause between two writes; everything that arrives meanwhile is written together."""
REST = 1.5
"""The pause is so many times as long as the write, so that keys work on a slow machine too."""


class AnswerFoot(Static):
    """The lines under an answer: what it waits for, its notes, how it ended, and possible actions."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(classes="answer-foot", markup=False)
        self._turn = turn
        self._answer = turn.answer
        self.newest = True
        """Whether this is the answer that can be generated again."""
        self._shown: tuple[object, ...] = ()

    def on_mount(self) -> None:
        self.show(self._answer, self.newest)

    def show(self, answer: Answer, newest: bool) -> None:
        """Draw the foot if something changed."""
        self._answer, self.newest = answer, newest
        ended = answer.ended and (answer.receipt is not None or answer.status is AnswerStatus.FAILED)
        line = end_line(answer) if answer.ended else progress_line(answer)
        shown = (*answer.notes, line, ended, newest, len(self._turn.others))
        if shown == self._shown:
            return
        self._shown = shown
        notes = shown_notes(answer.notes)
        parts: list[Content] = [Content.from_markup("[$warning]▲ $note[/]", note=note) for note in notes]
        style = "$error" if answer.status is AnswerStatus.FAILED else "dim"
        if line:
            parts.append(Content.from_markup(f"[{style}]$line[/]", line=line))
        if answer.ended:
            parts.append(Content.from_markup(self._others(newest) + self._actions(answer, newest)))
        self.update(Content("\n").join(parts))
        self.display = bool(parts)

    def _others(self, newest: bool) -> str:
        """Which of several answers this is, and the way to the others."""
        answers = self._turn.answers
        if len(answers) < 2 or not newest:
            return ""
        place = f"answer {answers.index(self._turn.answer) + 1} of {len(answers)}"
        return f"[@click=screen.previous_answer]‹[/] {place} (alt+←/→) [@click=screen.next_answer]›[/]   "

    @staticmethod
    def _actions(answer: Answer, newest: bool) -> str:
        actions = []
        if newest:
            actions.append("[@click=screen.regenerate]↻ regenerate[/]")
        if answer.text:
            actions.append(f"[@click=screen.copy_answer('{answer.request}')]copy[/]")
        if answer.receipt:
            actions.append(f"[@click=screen.receipt('{answer.request}')]◉ who saw what[/]")
        return "   ".join(actions)


def finished_widgets(turn: Turn, width: int, newest: bool = False) -> list[Widget]:
    """Widgets of a turn whose answer has ended; its segments are not drawn yet."""
    widgets: list[Widget] = [PromptView(turn.prompt)] if turn.prompt else []
    lines = AnswerLines()
    lines.add(*(Piece(source, guessed_height(source, width)) for source in segments_of(turn.answer.text)))
    foot = AnswerFoot(turn)
    foot.newest = newest
    return [*widgets, lines, foot]


class AnswerWriter:
    """Follows one answer until it has ended and is completely shown."""

    def __init__(self, view: ConversationView, turn: Turn) -> None:
        self.answer = turn.answer
        self.foot = AnswerFoot(turn)
        self._view = view
        self._segmenter = Segmenter()
        self.lines = AnswerLines()
        self._live: ModelMarkdown | None = None
        """The last part of the answer, which still grows."""
        self._source = ""
        self._written = 0
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Call this when the answer has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Mount the foot, then write until the end."""
        await self._view.mount(self.lines, self.foot)
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            ended = self.answer.ended
            await self._catch_up()
            self.foot.show(self.answer, self.foot.newest)
            if ended and (self.answer.receipt is not None or self.answer.status is AnswerStatus.FAILED):
                break
            await asyncio.sleep(max(FRAME_S, REST * (loop.time() - started)))
            await self._wake.wait()
            self._wake.clear()
        await self._settle()

    async def _catch_up(self) -> None:
        """Write the new text. If it is long, only its end becomes widgets; the rest is drawn when it is visible."""
        text = self.answer.text
        cuts = self._segmenter.feed(text[self._written :])
        self._written = len(text)
        first, whole, rest = split_cuts(cuts)
        await self._write(first)
        if whole:
            width = self._view.size.width
            self.lines.add(*(Piece(source, guessed_height(source, width)) for source in whole))
        await self._write(rest)

    async def _write(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            if not isinstance(cut, Write):
                await self._settle()
                continue
            if self._live is None:
                self._live, self._source = ModelMarkdown(), ""
                await self._view.mount(self._live, before=self.foot)
            self._source += cut.text
            await self._live.append(cut.text)

    async def _settle(self) -> None:
        """The growing part is complete: keep its lines and remove its widgets."""
        live, self._live = self._live, None
        if live is None:
            return
        strips = await lines_of(live)
        width = self._view.size.width
        if strips is None:
            self.lines.add(Piece(self._source, guessed_height(self._source, width)))
        else:
            self.lines.add(Piece(self._source, len(strips), strips, width))
        await live.remove()
