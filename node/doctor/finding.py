"""One finding: what was checked, the result, what to do."""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict


class Level(Enum):
    """How serious a finding is."""

    OK = "ok"
    NOTE = "note"
    """Works, but less well than it could, or on purpose."""
    BROKEN = "broken"


class Finding(Struct, frozen=True):
    """One finding. `next_step` is empty if nothing needs to be done."""

    check: str
    level: Level
    text: str
    next_step: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"level": self.level.value}


def finding_of(value: dict[str, Any]) -> Finding:
    """A finding that another process of this node wrote as JSON."""
    return Finding(value["check"], Level(value["level"]), value["text"], value["next_step"])


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def note(check: str, text: str, next_step: str = "") -> Finding:
    return Finding(check, Level.NOTE, text, next_step)


def broken(check: str, text: str, next_step: str) -> Finding:
    return Finding(check, Level.BROKEN, text, next_step)
