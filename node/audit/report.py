"""The report: a table for people, and the same with all figures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from node.audit.attacks import LIKELIHOOD, NEAREST, REPEATED, REUSE, UNIFORM
from node.audit.findings import CHANCE_P, Finding, Kind, Section
from node.audit.metadata import METADATA
from node.audit.scenario import CROSSED, DEPTHS, EVERYBODY, FORMS, HEAD, WITHOUT_DEVICE
from node.version import VERSION

COLUMNS: Sequence[tuple[str, Sequence[str]]] = (
    ("nearest token", [NEAREST]),
    *((place, [f"vocabulary, {place}"]) for place in (*(name for name, _kind in DEPTHS), HEAD)),
    ("two texts", [LIKELIHOOD]),
    ("seen before", [REPEATED]),
    ("uniform", [UNIFORM]),
    ("one pad", [REUSE]),
    ("recovered", [CROSSED, WITHOUT_DEVICE, EVERYBODY]),
)
NOTES = (
    "nearest token, first layer … head: rows whose token an attack names first (95 % interval). two texts, seen "
    "before: how well one tells two prompts apart; 0.5 is chance. uniform: p-value. one pad: pairs of rows that "
    "differ or add up to little. recovered: rows that peers recover who put pads and shares together (split: guards "
    "of different lanes; strict: all peers, without a paired device). controls: the same attacks on plain rows, and "
    "by those who hold both pads and shares, which must succeed."
)


def tables_of(sections: Sequence[Section]) -> list[Table]:
    """One line for each session, and one for each question about metadata."""
    about_metadata = [section for section in sections if section.name.startswith(METADATA)]
    sessions = [section for section in sections if section not in about_metadata]
    made = [(_table_of_sessions, sessions), (_table_of_metadata, about_metadata)]
    return [make(some) for make, some in made if some]


def _table_of_sessions(sections: Sequence[Section]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("session", no_wrap=True)
    for name, _whats in COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("controls", justify="right")
    table.add_column("", no_wrap=True)
    for section in sections:
        cells = [_cell(section, whats) for _name, whats in COLUMNS]
        controls = [finding for finding in section.findings if finding.kind is Kind.CONTROL]
        succeeded = sum(finding.holds for finding in controls)
        table.add_row(
            f"{section.model}: {section.name}", *cells, f"{succeeded} of {len(controls)}", _verdict(section)
        )
    return table


def _table_of_metadata(sections: Sequence[Section]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("guessed right", no_wrap=True)
    whats = list(dict.fromkeys(finding.what for section in sections for finding in section.findings))
    for what in whats:
        table.add_column(what, justify="right")
    table.add_column("", no_wrap=True)
    for section in sections:
        cells = [_cell(section, [what]) for what in whats]
        table.add_row(f"{section.model}: {section.name}", *cells, _verdict(section))
    return table


def _verdict(section: Section) -> str:
    return "FAIL" if section.failed else "ok"


def _cell(section: Section, whats: Sequence[str]) -> str:
    found = next((finding for what in whats if (finding := section.finding(what)) is not None), None)
    return "–" if found is None else found.seen if found.holds else f"{found.seen} !"


def failures(sections: Sequence[Section]) -> list[str]:
    """One line for each claim that does not hold and each control that did not succeed."""
    return [
        f"{section.model}: {section.name}: {_words(finding)}" for section in sections for finding in section.failed
    ]


def _words(finding: Finding) -> str:
    if finding.kind is Kind.CONTROL:
        return f"the control «{finding.what}» reached only {finding.seen}: the audit itself is at fault"
    p = finding.figures.get("p")
    chance = "" if p is None else f", which noise gives with a chance of {p:.1g}"
    name = "messages of a form that is not allowed" if finding.what == FORMS else finding.what
    return f"{name}: {finding.seen}{chance}"


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The whole report."""
    return {
        "version": VERSION,
        "holds": not failures(sections),
        "chance": CHANCE_P,
        "failures": failures(sections),
        "sections": [section.as_json() for section in sections],
    }
