"""One line on a terminal about an answer that has not begun: whom it waits for, or how far its prompt is read."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import Self, TextIO

from node.cli import narrate
from node.engine.request import Event, Prefilled, Queued

AFTER_S = 1.0
"""Nothing is shown of what takes less."""


class WaitingLine:
    """It stands below a terminal's text until an event of another kind comes, and leaves nothing behind; what else is
    printed on stderr meanwhile stands above it.

    Args:
        stream: where it stands, if that is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, after_s: float = AFTER_S) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.RLock()
        self._text = ""
        self._width = 0
        self._may_show = False
        self._timer = threading.Timer(after_s, self._begin)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._stream.isatty():
            narrate.above(self)
            self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._may_show = False
            self._put_away()
        narrate.above(None)

    def hear(self, event: Event) -> None:
        """Show what an event says of the waiting; before any other event is printed, the line goes."""
        match event:
            case Queued(position) if position:
                text = f"waiting: {position} {'request' if position == 1 else 'requests'} before this one"
            case Prefilled(done, total) if done < total:
                text = f"reading the prompt: {done} of {total} tokens"
            case _:
                text = ""
        with self._lock:
            self._put_away()
            self._text = text
            self._show()

    def lift(self) -> None:
        """Make room for a line of others."""
        self._lock.acquire()
        self._put_away()

    def lower(self) -> None:
        """Stand below it."""
        self._show()
        self._lock.release()

    def _begin(self) -> None:
        with self._lock:
            self._may_show = not self._timer.finished.is_set()
            self._show()

    def _show(self) -> None:
        if self._may_show and self._text:
            text = self._text[: shutil.get_terminal_size().columns - 1]
            self._put(text)
            self._width = len(text)

    def _put_away(self) -> None:
        if self._width:
            self._put(f"\r{' ' * self._width}\r")
            self._width = 0

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # nobody reads it any more; the answer goes on
            self._may_show, self._width = False, 0
