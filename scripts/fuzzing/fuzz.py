"""`scripts/fuzz`: runs every target for its part of the time, and prints what was read, reached and found.

Inputs that reached new code are kept from run to run (`--corpus`); the seeds are made anew each time. An input that
broke a promise is written beside them, with the command that reads it again. Exit code 1 if there is one.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from scripts.fuzzing.targets import all_targets
from scripts.harness.programs import ROOT, environment, program

HOW_TO_GET = (
    "atheris is not installed: `.venv/bin/pip install -c scripts/constraints.txt atheris` gets it (Python 3.11 to "
    "3.13, Linux on x86-64). The tests read the seeds and some mutations without it: `pytest tests/test_fuzz.py`"
)
TARGETS = {target.name: target for target in all_targets()}
CORPUS = ROOT / "build" / "fuzz"
START_S = 1200.0
"""A process may take so long to begin, on a machine that is busy with other things."""
_PROGRESS = re.compile(r"^#\d+\s+\w+.*? cov: (\d+) ft: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target."""

    name: str
    inputs: int
    edges: int
    features: int
    most_bytes: int
    crash: Path | None
    why: str
    """Empty where nothing was found."""

    @property
    def row(self) -> str:
        """As a line of the table."""
        found = 1 if self.why else 0
        figures = f"{self.inputs} | {self.edges} | {self.features} | {found} | {self.most_bytes / (1 << 20):.1f} MiB"
        return f"| {self.name} | {figures} | {TARGETS[self.name].bound} |"


def run_target(name: str, seconds: float, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    corpus, seeds, crashes = (folder / kind / name for kind in ("corpus", "seeds", "crashes"))
    for each in (corpus, seeds, crashes):
        each.mkdir(parents=True, exist_ok=True)
    known = set(crashes.iterdir())
    folders = [f"-artifact_prefix={crashes}/", str(corpus), str(seeds)]
    command = [*program("scripts.fuzzing.worker"), name, str(seconds), str(seeds), *folders]
    try:
        ended = subprocess.run(
            command,
            env=_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2 * seconds + START_S,
        )
        said, told, code = ended.stderr, ended.stdout, ended.returncode
    except subprocess.TimeoutExpired as exc:
        said, told, code = _text(exc.stderr), _text(exc.stdout), -1
    new = sorted(set(crashes.iterdir()) - known)
    return _outcome(name, said, told, code, new[0] if new else None)


def _outcome(name: str, said: str, told: str, code: int, crash: Path | None) -> Outcome:
    progress = _PROGRESS.findall(said)
    edges, features = map(int, progress[-1]) if progress else (0, 0)
    facts: dict[str, int] = next((json.loads(line) for line in told.splitlines()[::-1] if line.startswith("{")), {})
    why = ""
    if code or crash is not None:
        found = re.findall(r"^FOUND .*$", said, re.MULTILINE)
        why = found[-1] if found else f"it ended with {code}: {said[-1500:]}"
    return Outcome(name, facts.get("inputs", 0), edges, features, facts.get("most_bytes", 0), crash, why)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _environment() -> dict[str, str]:
    """Without the stacks of libraries in Rust: to find their names takes longer than an input may."""
    return {**environment(), "RUST_BACKTRACE": "0"}


def replay(name: str, path: Path) -> int:
    """Read one input in a process of its own; the exit code."""
    return subprocess.run(
        [*program("scripts.fuzzing.worker"), name, "replay", str(path)], env=_environment()
    ).returncode


def run(names: Sequence[str], minutes: float, folder: Path, at_once: int) -> list[Outcome]:
    """Fuzz these targets, some at a time; they share the time equally."""
    seconds = 60 * minutes * at_once / len(names)
    click.echo("| target | inputs | edges | features | crashes | most memory of an input | bound |")
    click.echo("|---|---|---|---|---|---|---|")
    outcomes = []
    with ThreadPoolExecutor(at_once) as pool:
        for outcome in pool.map(lambda name: run_target(name, seconds, folder), names):
            click.echo(outcome.row)
            outcomes.append(outcome)
    return outcomes


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(0.05, 6000), default=10.0, show_default=True, help="For all targets."
)
@click.option("--target", "names", multiple=True, type=click.Choice(sorted(TARGETS)), help="Only these targets.")
@click.option("--list", "lists", is_flag=True, help="Say which targets there are.")
@click.option("--at-once", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option("--corpus", "folder", type=click.Path(path_type=Path), default=CORPUS, help="Where inputs are kept.")
@click.option(
    "--replay", "input_", type=click.Path(exists=True, path_type=Path), help="Read one input of a --target."
)
def main(
    minutes: float, names: tuple[str, ...], lists: bool, at_once: int, folder: Path, input_: Path | None
) -> None:
    """Fuzz every decoder."""
    chosen = list(names or TARGETS)
    if lists:
        for name in chosen:
            click.echo(f"{name:18} {TARGETS[name].reads}")
        return
    if importlib.util.find_spec("atheris") is None:
        raise click.ClickException(HOW_TO_GET)
    if input_ is not None:
        if len(chosen) != 1:
            raise click.UsageError("--replay needs one --target")
        sys.exit(replay(chosen[0], input_))
    outcomes = run(chosen, minutes, folder, min(at_once, len(chosen)))
    found = [outcome for outcome in outcomes if outcome.why]
    for outcome in found:
        click.echo(f"\n{outcome.name}: {outcome.why}")
        if outcome.crash is not None:
            click.echo(f"again: scripts/fuzz --target {outcome.name} --replay {shlex.quote(str(outcome.crash))}")
    total = sum(outcome.inputs for outcome in outcomes)
    click.echo(f"\n{total} inputs, {len(found)} targets with crashes")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(prog_name="scripts/fuzz")
