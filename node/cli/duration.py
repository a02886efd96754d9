"""Durations on the command line: `90s`, `30m`, `24h`, `7d`."""

from __future__ import annotations

import re
from typing import Any

import click

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")


class DurationType(click.ParamType[float]):
    """A number of seconds, above 0 and at most `max_s`."""

    name = "duration"

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        matched = _DURATION.fullmatch(str(value).strip())
        seconds = 0.0 if matched is None else float(matched[1]) * UNITS_S[matched[2]]
        if not 0 < seconds <= self._max_s:
            self.fail(
                f"{value!r} is not a duration of at most {self._max_s / 86400:g} days: write 90s, 30m, 24h or 7d",
                param,
                ctx,
            )
        return seconds
