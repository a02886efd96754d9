"""Typed access to a `config.json`; every error names the model and the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from node.errors import UnsupportedModelError
from node.model.config import MAX_FACTOR, MODEL_TYPES


class Reader:
    """Reads a JSON object of a model."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def refuse(self, reason: str) -> UnsupportedModelError:
        supported = ", ".join(MODEL_TYPES)
        return UnsupportedModelError(
            f"model {self.where} is not supported: {reason}; use a dense {supported} checkpoint in safetensors"
        )

    def integer(self, key: str, limit: int, default: int | None = None, low: int = 1) -> int:
        value = self.raw.get(key)
        if value is None:
            value = default
        if type(value) is not int or not low <= value <= limit:
            raise self.refuse(f"config.json has {key} = {value!r}, not an integer in {low}..{limit}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.raw.get(key)
        if value is None:
            value = default
        if type(value) not in (int, float) or not 0 < cast(float, value) < MAX_FACTOR:
            raise self.refuse(f"config.json has {key} = {value!r}, not a positive number")
        return float(cast(float, value))

    def number_or_none(self, key: str) -> float | None:
        return None if self.raw.get(key) is None else self.number(key)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` positive numbers."""
        values = self.raw.get(key)
        if not isinstance(values, list) or len(values) != count:
            raise self.refuse(f"config.json has no list of {count} numbers as {key}")
        return tuple(Reader({key: value}, self.where).number(key) for value in values)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.raw.get(key)
        if value not in (None, True, False):
            raise self.refuse(f"config.json has {key} = {value!r}, not true or false")
        return default if value is None else bool(value)
