"""Runs tests in the copy of the tree, and says what became of a fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from scripts.harness.programs import environment
from scripts.mutations.mutation import Mutant
from scripts.mutations.tree import BuildError, Tree
from scripts.mutations.witness import FILE_VARIABLE

TEST_S = 120
"""The longest time of one test."""
ALL_S = 1800.0
"""The longest time of all tests of one fault, or of the table in a clean tree."""


class Fate(Enum):
    """What became of a fault."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    """All tests passed: there is a hole between them."""
    BROKEN = "BROKEN"
    """The tests failed and did not say that a rule does not hold, or did not end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a trial ended."""

    mutant: Mutant
    fate: Fate
    by: str = ""
    """The test that noticed it, or what went wrong."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of tests."""

    passed: bool
    noticed_by: str | None = None
    """The first test that said that a rule does not hold."""
    trouble: str = ""
    """Why it failed otherwise."""


def try_mutant(tree: Tree, mutant: Mutant) -> Verdict:
    """Plant a fault, run its tests, take it away again."""
    try:
        with tree.with_fault(mutant):
            run = run_tests(tree, mutant.tests)
    except BuildError as exc:
        return Verdict(mutant, Fate.BROKEN, f"it cannot be built: {exc}")
    if run.passed:
        return Verdict(mutant, Fate.SURVIVED)
    if run.noticed_by is not None:
        return Verdict(mutant, Fate.KILLED, run.noticed_by)
    return Verdict(mutant, Fate.BROKEN, run.trouble)


def run_tests(tree: Tree, tests: Sequence[str]) -> Run:
    """Run tests in the copy up to the first that notices something; that another tree ran is an error of this
    program."""
    seen = tree.folder.parent / "witness"
    seen.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-p", "scripts.mutations.witness"]
    limits = [f"--timeout={TEST_S}", "--hypothesis-seed=0"]
    command = [sys.executable, "-P", "-m", "pytest", *options, *limits, *(f"tests/{test}" for test in tests)]
    code, said = _run(command, tree.folder, seen)
    lines = [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []
    for file in (file for line in lines for file in line.get("ran", [])):
        if not Path(file).resolve().is_relative_to(tree.folder):
            raise RuntimeError(f"{file} ran instead of the copy in {tree.folder}")
    failures = [line for line in lines if "test" in line]
    noticed = next((line["test"] for line in failures if line["noticed"]), None)
    trouble = failures[0]["why"] if failures else said
    return Run(code == 0, None if noticed is None else noticed.removeprefix("tests/"), trouble)


def _run(command: Sequence[str], folder: Path, seen: Path) -> tuple[int | None, str]:
    """The exit code, or None if it did not end in time; and the last line that was said."""
    given = environment({key: value for key, value in os.environ.items() if key != "PYTHONPATH"})
    given |= {"PYTHONPATH": str(folder), FILE_VARIABLE: str(seen)}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=ALL_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, "the tests did not end"
    return process.returncode, output.strip().rpartition("\n")[2]
