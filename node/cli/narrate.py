"""What a command tells the user on stderr: log lines above a level, errors as one line."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

import click

from node.paths import default_data_dir

_always_told: set[str] = set()


class _Below(Protocol):
    """A line that stands below all others."""

    def lift(self) -> None: ...

    def lower(self) -> None: ...


_below: _Below | None = None
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def configure_logging(verbosity: int) -> None:
    """Send log lines to stderr. No prompt, token, share or key is ever logged, at any level."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s", "%H:%M:%S"))
    level = LEVELS[min(verbosity, len(LEVELS) - 1)]
    handler.addFilter(lambda record: record.levelno >= level or record.name in _always_told)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(min(level, logging.INFO))  # the interface shows more log lines than stderr


class _Handler(logging.StreamHandler[TextIO]):
    """Prints log lines above a line that stands below all others."""

    def emit(self, record: logging.LogRecord) -> None:
        with _lifted():
            super().emit(record)


def above(below: _Below | None) -> None:
    """Print from now on above a line that stands below all others; None: there is none any more."""
    global _below
    _below = below


@contextlib.contextmanager
def _lifted() -> Iterator[None]:
    below = _below
    if below is not None:
        below.lift()
    try:
        yield
    finally:
        if below is not None:
            below.lower()


def always_tell(logger: str) -> None:
    """Print lines of this logger from INFO on, whatever the verbosity."""
    _always_told.add(logger)


def say(text: str) -> None:
    """Print one line on stderr; if nobody can read it any more, the work goes on."""
    try:
        with _lifted():
            click.echo(text, err=True)
    except OSError:
        drop(sys.stderr)


def hint(data_dir: Path, words: str = "") -> str:
    """A command to type: with the data directory where that is not the usual one. Without words it starts a node."""
    place = "" if data_dir == default_data_dir() else f"--data-dir {shlex.quote(str(data_dir))}"
    return " ".join(part for part in ("kekahyde-node", words, place) if part)


def drop(stream: TextIO) -> None:
    """Redirect a stream that cannot be written to the null device: otherwise the interpreter tries again at its end,
    which changes the exit code."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(text: str) -> None:
    """Print one line that says what went wrong."""
    line = " ".join(text.split())
    click.secho(f"error: {line}", err=True, fg=None if os.environ.get("NO_COLOR") else "red")
