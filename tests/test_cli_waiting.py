"""The line on a terminal about an answer that has not begun."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node.cli import narrate
from node.cli.waiting import WaitingLine
from node.engine.request import Event, Note, Prefilled, Queued, Started, Token


class Terminal(io.StringIO):
    """What is written, and how it looks."""

    is_terminal, is_gone = True, False

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        if self.is_gone:
            raise BrokenPipeError
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        """As a terminal shows them: what comes after a carriage return covers what was there."""
        shown = []
        for written in self.getvalue().split("\n"):
            line = ""
            for part in written.split("\r"):
                line = part + line[len(part) :]
            shown.append(line.rstrip())
        return shown


@contextmanager
def after_its_time(terminal: Terminal, *events: Event) -> Iterator[WaitingLine]:
    """A line that has heard these events, once it may be shown."""
    with WaitingLine(terminal, 0.0) as line:
        for event in events:
            line.hear(event)
        if line._timer.is_alive():
            line._timer.join()
        yield line


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ((Queued(2),), "waiting: 2 requests before this one"),
        ((Queued(12), Queued(1)), "waiting: 1 request before this one"),
        ((Queued(1), Queued(0)), ""),
        ((Queued(1), Prefilled(3, 512)), "reading the prompt: 3 of 512 tokens"),
        ((Prefilled(3, 512), Prefilled(512, 512)), ""),
        ((Prefilled(128, 512), Token(0, 1, "a")), ""),
        ((Prefilled(128, 512), Note("news")), ""),
        ((Prefilled(128, 512), Started("split", "a", "", 5)), ""),
    ],
)
def test_it_says_what_is_waited_for_and_goes_before_anything_else(events: tuple[Event, ...], text: str) -> None:
    terminal = Terminal()
    with after_its_time(terminal, *events):
        assert terminal.lines == [text]
    assert terminal.lines == [""], "and leaves nothing behind"
    late = Terminal()
    with after_its_time(late) as line:
        for event in events:
            line.hear(event)
        assert late.lines == [text]


def test_what_others_print_stands_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    handler = narrate._Handler(terminal)
    with after_its_time(terminal, Prefilled(128, 512)):
        narrate.say("note: something else")
        handler.emit(logging.LogRecord("a", logging.WARNING, "", 0, "a log line", None, None))
        waiting = "reading the prompt: 128 of 512 tokens"
        assert terminal.lines == ["note: something else", "a log line", waiting]
    narrate.say("the end")
    assert terminal.lines == ["note: something else", "a log line", "the end", ""]


def test_it_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 10)))
    terminal = Terminal()
    with after_its_time(terminal, Prefilled(128, 512)):
        assert terminal.lines == ["reading the prompt:"]


def test_nothing_is_said_of_what_takes_no_second_or_where_no_terminal_is() -> None:
    terminal = Terminal()
    with WaitingLine(terminal) as line:
        for event in (Queued(1), Prefilled(1, 2), Token(0, 1, "a")):
            line.hear(event)
    assert not terminal.getvalue()
    terminal.is_terminal = False
    with after_its_time(terminal, Prefilled(1, 2)):
        pass
    assert not terminal.getvalue()


def test_a_terminal_that_is_gone_is_no_obstacle() -> None:
    terminal = Terminal()
    terminal.is_gone = True
    with after_its_time(terminal, Prefilled(1, 4)) as line:
        line.hear(Prefilled(2, 4))
        line.hear(Token(0, 1, "a"))
