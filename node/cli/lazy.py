"""A group whose commands are imported when they are called, so that no command waits for the imports of others."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import ClassVar

import click


@contextmanager
def no_collection() -> Iterator[None]:
    """Stops garbage collection during imports: it would free nothing of hundreds of modules, and takes a tenth of the
    time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class LazyGroup(click.Group):
    """Knows the name and the place of each command; subclasses list them."""

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
