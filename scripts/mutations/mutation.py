"""What a planted fault is: the rule that it breaks, the text that it changes, and the tests that must notice it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one place in one file."""

    file: str
    """Its path from the root of the tree."""
    old: str
    """This text stands in the file exactly once."""
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault."""

    name: str
    rule: str
    """The rule that it breaks, one sentence."""
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """Files of `tests`, or single tests of them, as pytest names them: one of these must fail."""

    @property
    def builds(self) -> bool:
        """Whether it is a fault of compiled code."""
        return any(edit.file.endswith((".c", ".h")) for edit in self.edits)


def mutant(name: str, rule: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A fault of one place."""
    return Mutant(name, rule, (Edit(file, old, new),), tests)


def planted_in(text: str, edit: Edit) -> str:
    """The text with its change; raises ValueError where the old text does not stand in it exactly once."""
    count = text.count(edit.old)
    if count != 1:
        raise ValueError(f"{edit.file} has the text {edit.old!r} {count} times")
    return text.replace(edit.old, edit.new)


def stale(mutants: Sequence[Mutant], root: Path) -> list[str]:
    """What in a table does not fit the tree at `root`: texts, tests, names; empty if all fits."""
    found = [f"two faults are called {name}" for name, count in Counter(m.name for m in mutants).items() if count > 1]
    for each in mutants:
        found += [f"{each.name}: {problem}" for problem in _problems(each, root)]
    return found


def _problems(each: Mutant, root: Path) -> list[str]:
    problems = [f"no test is called {test}" for test in each.tests if not _is_there(root / "tests", test)]
    if not each.tests:
        problems.append("no test is named for it")
    texts: dict[str, str] = {}
    for edit in each.edits:
        try:
            before = texts.get(edit.file) or (root / edit.file).read_text()
            texts[edit.file] = planted_in(before, edit)
        except (OSError, ValueError) as exc:
            problems.append(str(exc))
    return problems


def _is_there(folder: Path, test: str) -> bool:
    """Whether a file of tests exists, and has the function that a test names."""
    file, _, name = test.partition("::")
    path = folder / file
    function = name.partition("[")[0]
    return path.is_file() and (not name or re.search(rf"\bdef {function}\(", path.read_text()) is not None)
