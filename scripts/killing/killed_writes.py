"""`scripts/killed_writes`: does everything that a node keeps, and kills the process at every write of it.

For each case the process dies at the first call that changes its data directory, then at the second, and so on:
before the call, and once more after half of it. Exit code 1 if something is half-written afterwards, if the next
start fails, or if a key, a list or a number was lost.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from node.paths import DataDir
from scripts.harness.programs import environment, program
from scripts.killing.cases import CASES, DATA, Case
from scripts.killing.shim import ShimError, forked, is_loaded, was_killed, with_shim

MAX_CALLS = 2000


@dataclass(slots=True)
class Outcome:
    """What became of one case."""

    name: str
    calls: int = 0
    deaths: int = 0
    left_over: int = 0
    """Unfinished files that are still there when all is done."""
    faults: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        """As a line of the table."""
        return f"| {self.name} | {self.calls} | {self.deaths} | {self.left_over} | {len(self.faults)} |"


class Prover:
    """Runs one case in folders of its own."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._folder = folder
        self._outcome = Outcome(case.name)
        self._ready = folder / "ready"
        self._ready.mkdir()
        case.prepare(self._ready)
        self._old = self._state(self._ready)
        done = self._fresh()
        status = self._do(done, 0, False)
        if status:
            raise AssertionError(f"{case.name} does not work at all: {_said(done)}")
        self._new = self._state(done)

    def prove(self, every: int) -> Outcome:
        """Kill it at every n-th call, beginning with the first."""
        for call in range(1, MAX_CALLS, every):
            for half in (False, True):
                if not self._die(call, half):
                    return self._outcome
            self._outcome.calls = call
        raise AssertionError(f"{self._case.name} writes more than {MAX_CALLS} times")

    def _die(self, call: int, half: bool) -> bool:
        """Whether it died there; if it did, what is on the disk is examined, and the work done again."""
        root = self._fresh()
        status = self._do(root, call, half)
        if not was_killed(status):
            if status:
                self._fault(call, half, f"it failed: {_said(root)}")
            return False
        self._outcome.deaths += 1
        try:
            self._examine(root)
        except Exception as exc:
            self._fault(call, half, f"{type(exc).__name__}: {exc}")
        return True

    def _examine(self, root: Path) -> None:
        dead = self._state(root)
        legal = self._case.may_be(self._old, self._new, dead) if self._case.may_be else dead in (self._old, self._new)
        assert legal, f"neither the old state nor the new one: {dead}"
        assert all(path.stat().st_mode & 0o77 == 0 for path in _secrets(root)), "a secret can be read by others"
        status = self._do(root, 0, False)
        assert not status, f"the next start fails: {_said(root)}"
        final = self._state(root)
        agrees = self._case.agrees(dead, final) if self._case.agrees else final == self._new
        assert agrees, f"{final} after {dead}"
        DataDir(root / DATA).remove_left_behind()  # as the next start of a node does
        self._outcome.left_over += len(list(root.rglob("*.tmp")) + list(root.rglob("*.part")))

    def _fresh(self) -> Path:
        root = self._folder / "now"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(
            self._ready, root, copy_function=os.link if self._case.name == "first start" else shutil.copy2
        )
        return root

    def _do(self, root: Path, call: int, half: bool) -> int:
        return forked(lambda: self._case.work(root), root / DATA, call, half, root / "said")

    def _state(self, root: Path) -> Any:
        return self._case.state(root)

    def _fault(self, call: int, half: bool, text: str) -> None:
        self._outcome.faults.append(f"{self._case.name}, call {call}{' by half' if half else ''}: {text}")


def _secrets(root: Path) -> list[Path]:
    """Files whose content nobody else may read, the unfinished ones too."""
    names = ("*identity.key*", "*swarm.key*", "*swarm.unfinished*", "*gateway.token*", "*paired.json*", "*.part")
    return [path for name in names for path in root.rglob(name)]


def _said(root: Path) -> str:
    return (root / "said").read_text(errors="replace")[-600:]


def prove(names: Sequence[str], every: int = 1) -> list[Outcome]:
    """Run these cases in this process, which must have the library."""
    outcomes = []
    for case in CASES:
        if case.name in names:
            with tempfile.TemporaryDirectory(prefix="kekahyde-killed-") as folder:
                outcomes.append(Prover(case, Path(folder)).prove(every))
    return outcomes


@click.command()
@click.option("--case", "names", multiple=True, type=click.Choice([case.name for case in CASES]), help="Only these.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Die at every n-th call only.")
def main(names: tuple[str, ...], every: int) -> None:
    """Kill a process at every write."""
    if not is_loaded():
        try:
            sys.exit(with_shim([*program("scripts.killing.killed_writes"), *sys.argv[1:]], environment()))
        except ShimError as exc:
            raise click.ClickException(str(exc)) from exc
    click.echo(
        "| what is done | calls that change the disk | deaths | files left over | faults |\n|---|---|---|---|---|"
    )
    outcomes = []
    for name in names or [case.name for case in CASES]:
        (outcome,) = prove([name], every)
        click.echo(outcome.row)
        outcomes.append(outcome)
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    for fault in faults:
        click.echo(f"FAILED: {fault}")
    click.echo(f"\n{sum(outcome.deaths for outcome in outcomes)} deaths, {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(prog_name="scripts/killed_writes")
