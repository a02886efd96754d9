"""Shows on stderr how far a fetch is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from node.cli.narrate import say

OnBytes = Callable[[int, int, str], None]
"""Bytes that are here, bytes in all, the current step."""


@contextmanager
def progress_shown() -> Iterator[OnBytes]:
    """Show a bar on a terminal, and elsewhere a line for every step."""
    if not sys.stderr.isatty():
        yield _lines()
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


def _lines() -> OnBytes:
    said: list[str] = []

    def on_bytes(done: int, total: int, step: str) -> None:
        if step not in said:
            said.append(step)
            say(step if not total else f"{step}: {done / 2**20:.1f} of {total / 2**20:.1f} MiB are here")

    return on_bytes
