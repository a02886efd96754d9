"""What the audit found: claims that must hold, controls that must succeed, and figures that are only told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct, field

CHANCE_P = 1e-4
"""A claim fails where what was seen has a smaller p-value if the peers see noise alone. Of so many claims that hold,
one fails by chance in 10 000."""


class Kind(Enum):
    """What a finding is."""

    CLAIM = "claim"
    """What peers must not be able to do."""
    CONTROL = "control"
    """What the same attack must be able to do where it is given more; otherwise the attack is worth nothing."""
    FIGURE = "figure"
    """What peers do learn."""


class Finding(Struct, frozen=True):
    """One line of the report."""

    kind: Kind
    what: str
    seen: str
    """In a few words, for the table."""
    holds: bool = True
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "what": self.what,
            "seen": self.seen,
            "holds": self.holds,
            "figures": dict(self.figures),
        }


class Section(Struct, frozen=True):
    """What was found in one session, or about one question."""

    model: str
    name: str
    findings: Sequence[Finding]

    @property
    def failed(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.holds]

    def finding(self, what: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.what == what), None)

    def as_json(self) -> dict[str, Any]:
        findings = [finding.as_json() for finding in self.findings]
        return {"model": self.model, "name": self.name, "findings": findings}


def by_chance(what: str, p: float, seen: str, figures: Mapping[str, Any]) -> Finding:
    """A claim that holds unless what was seen is too unlikely by chance."""
    return Finding(Kind.CLAIM, what, seen, p >= CHANCE_P, {**figures, "p": p})


def no_more(what: str, count: int, seen: str, figures: Mapping[str, Any] | None = None) -> Finding:
    """A claim that nothing of something was found."""
    return Finding(Kind.CLAIM, what, seen, count == 0, figures or {})


def at_least(what: str, value: float, least: float, figures: Mapping[str, Any] | None = None) -> Finding:
    """A control that reaches at least a share."""
    return Finding(Kind.CONTROL, what, percent(value), value >= least, {**(figures or {}), "least": least})


def percent(share: float) -> str:
    """A share as a percentage, with a digit where it is not whole."""
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"
