"""A group whose commands are imported when they are called, so that no command waits for the imports of others."""

from __future__ import annotations

import difflib
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a mistyped name gets a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            near = difflib.get_close_matches(args[0] if args else "", self.places, 1)
            if not near or "No such command" not in exc.message:
                raise
            raise click.UsageError(f"there is no command {args[0]!r}; did you mean {near[0]}?", ctx) from exc

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        with no_collection():
            command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command
