"""One line on a terminal about an answer that has not begun: whom it waits for, or how far its prompt is read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from node.engine.request import Event, Prefilled, Queued

AFTER_S = 1.0
"""Nothing is shown of what takes less."""


class WaitingLine:
    """It stands at the end of a terminal's text until an event of another kind comes, and leaves nothing behind.

    Args:
        stream: where it stands, if that is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._from = clock() + AFTER_S
        self._width = 0
        self._is_shown = self._stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.clear()

    def hear(self, event: Event) -> None:
        """Tell what an event says of the waiting; before any other event is printed, the line goes."""
        match event:
            case Queued(position):
                self._write(f"waiting: {position} {'request' if position == 1 else 'requests'} before this one")
            case Prefilled(done, total) if done < total:
                self._write(f"reading the prompt: {done} of {total} tokens")
            case _:
                self.clear()

    def clear(self) -> None:
        if self._width:
            self._put(f"\r{' ' * self._width}\r")
            self._width = 0

    def _write(self, text: str) -> None:
        if self._is_shown and self._clock() >= self._from:
            self._put(f"\r{text.ljust(self._width)}")
            self._width = len(text)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # nobody reads it any more; the answer goes on
            self._is_shown, self._width = False, 0
