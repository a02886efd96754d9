"""A conversation on the command line: each line of stdin is a turn, and the model reads all turns before it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from node.errors import PromptError

MAX_TURN_BYTES = 1 << 20
END = "/bye"
"""A line that ends the conversation, as the end of stdin does."""
CLEAR = "/clear"
"""A line after which the model knows nothing of what was said before."""
MARK = ">>> "

Message = dict[str, str]


def converse(answer: Callable[[list[Message]], str]) -> None:
    """Answer one line after the other.

    Args:
        answer: shows the answer to these messages, the newest last, and returns its text.
    """
    messages: list[Message] = []
    for line in _lines():
        if line == CLEAR:
            messages = []
        elif line:
            messages.append({"role": "user", "content": line})
            messages.append({"role": "assistant", "content": answer(messages)})


def _lines() -> Iterator[str]:
    """Lines without the white space around them, until the conversation ends."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # `input` lets a person edit the line, and go back to earlier ones
        click.echo(f"{END} or Ctrl-D ends the conversation, {CLEAR} begins another one", err=True)
    while True:
        line = _typed() if is_terminal else _piped()
        if line is None or line.strip() == END:
            return
        yield line.strip()


def _typed() -> str | None:
    try:
        return input(MARK)
    except EOFError:
        click.echo(err=True)
        return None


def _piped() -> str | None:
    content = sys.stdin.buffer.readline(MAX_TURN_BYTES + 1)
    if len(content) > MAX_TURN_BYTES:
        raise PromptError(f"a line of stdin has more than {MAX_TURN_BYTES} bytes: give a shorter one")
    try:
        return content.decode("utf-8") if content else None
    except UnicodeDecodeError as exc:
        raise PromptError(f"stdin is not UTF-8 text (byte {exc.start} of a line): convert it first") from exc
