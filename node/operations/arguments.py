"""Arguments of management operations, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from node.errors import OperationError

MAX_TEXT_CHARACTERS = 4096
ChoiceT = TypeVar("ChoiceT", bound=Enum)


def text(arguments: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A string; raises OperationError naming the argument."""
    value = arguments.get(name, default)
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise OperationError(f"`{name}` is not a string of at most {MAX_TEXT_CHARACTERS} characters")
    return value


def optional_number(arguments: Mapping[str, Any], name: str) -> float | None:
    """A positive number, or None if it is absent; raises OperationError naming the argument."""
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise OperationError(f"`{name}` is not a positive number")
    return float(value)


def boolean(arguments: Mapping[str, Any], name: str) -> bool:
    """A boolean; raises OperationError naming the argument."""
    value = arguments.get(name)
    if not isinstance(value, bool):
        raise OperationError(f"`{name}` is not true or false")
    return value


def choice(arguments: Mapping[str, Any], name: str, kind: type[ChoiceT]) -> ChoiceT:
    """One of an enumeration's values; raises OperationError naming the argument."""
    value = arguments.get(name)
    found = next((member for member in kind if member.value == value), None)
    if found is None:
        raise OperationError(f"`{name}` must be one of {', '.join(str(member.value) for member in kind)}")
    return found
