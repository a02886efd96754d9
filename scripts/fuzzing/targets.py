"""All targets. A process that needs one of them loads no more than that: the last ones need a whole node."""

from __future__ import annotations

import importlib

from scripts.fuzzing.target import Target

ROOMS = ("wire", "files", "settings", "bodies", "frames")
"""Modules that have targets, those that load least first."""


def target_named(name: str) -> Target:
    """The target of this name; raises KeyError."""
    for room in ROOMS:
        for target in targets_of(room):
            if target.name == name:
                return target
    raise KeyError(name)


def all_targets() -> list[Target]:
    """Every target, those that load least first."""
    return [target for room in ROOMS for target in targets_of(room)]


def targets_of(room: str) -> tuple[Target, ...]:
    """The targets of one module."""
    found: tuple[Target, ...] = importlib.import_module(f"scripts.fuzzing.{room}").TARGETS
    return found
