"""The terminal and browser interface from the command line.

The module is imported by its name, because imports point from the interface to the node and never back, and a
headless node never loads code that draws on a screen.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import click

from node.cli.options import EXIT_CODES, data_dir_option, web_options
from node.errors import ConfigError, InterfaceError

MODULE = "tui.main"
OPTIONS_HERE = frozenset({"--web"})
OPTIONS_HERE_WITH_VALUE = frozenset({"--web-port", "--data-dir"})


class Interface(Protocol):
    """What the module offers. Both functions return what went wrong, or None."""

    def show(self, data_dir: Path, node_command: Sequence[str] | None) -> str | None:
        """Draw on this terminal until the user quits."""

    def serve(self, data_dir: Path, node_command: Sequence[str] | None, port: int | None) -> str | None:
        """Serve the same interface to a browser on this machine until a signal ends it."""


def has_terminal() -> bool:
    """Whether stdin and stdout are a terminal on which an interface can be drawn."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def open_interface(data_dir: Path, given: Sequence[str], web: bool, web_port: int | None) -> None:
    """Show or serve the interface for the node that runs on the directory, or for one that it starts with the
    given options."""
    if not web and not has_terminal():
        raise ConfigError(
            "the interface needs a terminal on stdin and stdout: open one, or use --web for a browser, "
            "or --headless for a node without it"
        )
    interface = cast(Interface, importlib.import_module(MODULE))
    rest = node_arguments(given)
    # Even if the interface is killed, the node that it started ends with it.
    mine = ["--headless", "--json", "--until-stdin-ends", "--data-dir", str(data_dir)]
    command = [sys.executable, "-m", "node", *mine, *rest]
    path = data_dir.resolve()
    failure = interface.serve(path, command, web_port) if web else interface.show(path, command)
    if failure:
        raise InterfaceError(failure)


def node_arguments(given: Sequence[str]) -> list[str]:
    """The given options without those of the interface itself."""
    rest: list[str] = []
    options = iter(given)
    for option in options:
        if option in OPTIONS_HERE_WITH_VALUE:
            next(options, None)
        elif option not in OPTIONS_HERE and option.partition("=")[0] not in OPTIONS_HERE_WITH_VALUE:
            rest.append(option)
    return rest


@click.command(epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@data_dir_option
@web_options
@click.pass_context
def tui(context: click.Context, data_dir: Path, web: bool, web_port: int | None) -> None:
    """Open the interface for the node that runs on --data-dir. If none runs, start one.

    Options of a node (--listen, --model ...) apply to the node that it starts. Quitting the interface ends only a
    node that it started itself.
    """
    open_interface(data_dir, context.args, web, web_port)
