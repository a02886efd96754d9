"""The line on a terminal about an answer that has not begun."""

from __future__ import annotations

import io

from node.cli.waiting import AFTER_S, WaitingLine
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
    def line(self) -> str:
        """The last line as a terminal shows it: what comes after a carriage return covers what was there."""
        shown = ""
        for part in self.getvalue().rpartition("\n")[2].split("\r"):
            shown = part + shown[len(part) :]
        return shown


def heard(terminal: Terminal, *events: Event, seconds: float = AFTER_S) -> WaitingLine:
    clock = iter([0.0, *(seconds for _ in events)])
    line = WaitingLine(terminal, lambda: next(clock))
    for event in events:
        line.hear(event)
    return line


def test_it_says_what_is_waited_for_and_goes_before_anything_else() -> None:
    terminal = Terminal()
    heard(terminal, Queued(2))
    assert terminal.line == "waiting: 2 requests before this one"
    terminal = Terminal()
    heard(terminal, Queued(12), Queued(1), Prefilled(3, 512))
    assert terminal.line.rstrip() == "reading the prompt: 3 of 512 tokens"
    for event in (Token(0, 1, "a"), Note("news"), Started("split", "a", "", 5), Prefilled(512, 512)):
        terminal = Terminal()
        heard(terminal, Prefilled(128, 512), event)
        assert not terminal.line.strip() and terminal.getvalue().endswith("\r"), "and the next text begins the line"


def test_it_goes_where_the_answer_fails() -> None:
    terminal = Terminal()
    with heard(terminal, Prefilled(128, 512)):
        assert terminal.line
    assert not terminal.line.strip()


def test_nothing_is_said_of_what_takes_no_second_or_where_no_terminal_is() -> None:
    terminal = Terminal()
    heard(terminal, Prefilled(1, 2), Token(0, 1, "a"), seconds=AFTER_S / 2)
    assert not terminal.getvalue()
    terminal.is_terminal = False
    heard(terminal, Prefilled(1, 2), Token(0, 1, "a"))
    assert not terminal.getvalue()


def test_a_terminal_that_is_gone_is_no_obstacle() -> None:
    terminal = Terminal()
    terminal.is_gone = True
    heard(terminal, Prefilled(1, 4), Prefilled(2, 4), Token(0, 1, "a")).clear()
