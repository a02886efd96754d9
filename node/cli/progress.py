"""Shows on stderr how far a fetch is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from node.cli.narrate import say

LINE_S = 5.0
"""Where there is no terminal, a line is shown so often."""

OnBytes = Callable[[int, int, str], None]
"""Bytes that are here, bytes in all, the current step."""


@contextmanager
def progress_shown() -> Iterator[OnBytes]:
    """Show a bar on a terminal, and elsewhere a line for every step."""
    if not sys.stderr.isatty():
        yield Lines(say)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("looking", total=None)
        yield lambda done, total, step: progress.update(
            task, completed=done, total=total or None, description=step[:40]
        )


def sources_words(count: int) -> str:
    """How many peers a fetch comes from."""
    return f"from {count} peer{'s' * (count > 1)}" if count else "looking for peers that hold it"


class Lines:
    """A line for every new step, and one every few seconds.

    Args:
        say: shows a line.
        clock: seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said: set[str] = set()
        self._said_at = 0.0
        self._from: tuple[float, int] | None = None
        """When the first bytes were there, and how many."""

    def __call__(self, done: int, total: int, step: str) -> None:
        now = self._clock()
        if step in self._said and now - self._said_at < LINE_S:
            return
        self._said.add(step)
        self._said_at = now
        if not total:
            self._say(step)
            return
        self._from = self._from or (now, done)
        line = f"{step}: {done / 2**20:.1f} of {total / 2**20:.1f} MiB are here"
        since, before = self._from
        rate = (done - before) / (now - since) if now > since else 0.0
        if rate > 0 and done < total:
            line += f", {rate / 2**20:.1f} MiB/s, {(total - done) / rate:.0f} s left"
        self._say(line)
