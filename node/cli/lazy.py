"""A group whose commands are imported when they are called: a command starts in the time that it needs itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import ClassVar

import click


@contextmanager
def no_collection() -> Iterator[None]:
    """For imports: nothing of hundreds of modules is ever freed, and looking for it costs a tenth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class LazyGroup(click.Group):
    """Knows its commands by name and place; subclasses name them."""

    places: ClassVar[Mapping[str, str]] = {}
    """`module:attribute` of each command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        with no_collection():
            command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command
