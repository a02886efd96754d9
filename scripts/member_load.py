"""`scripts/members`: what an honest client pays for a hostile member that loads one of its guards.

Three real nodes and a client on this machine: the client's answers go in `split` over the first two, and an attacker
that has the swarm's key loads either the second (its guard) or the third, with which the client has nothing to do.
Both loads take the same from the processors, so the ratio shows what the guard itself lets through. Runs are taken in
turn, round after round, so that a drift of the machine hits all of them alike; medians are printed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
from hostile_member import ATTACKS
from rich.console import Console
from rich.table import Table
from swarm_harness import RunResult, Swarm

PROMPT = "Once upon a time, there was a little girl named Lily."
PROGRAM = [sys.executable, str(Path(__file__).resolve().parent / "hostile_member.py")]
GUARD, UNINVOLVED = 1, 2
STOP_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Attacker:
    """The process of an attacker while it runs, and afterwards what it counted."""

    process: subprocess.Popen[str]
    counts: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def attacker(swarm: Swarm, victim: int, attack: str, identities: int) -> Iterator[Attacker]:
    """Load a node of the swarm from when all identities are let in until the end of the block."""
    data_dir = swarm.folder / "attacker"
    command = [*PROGRAM, "--target", swarm.nodes[victim].address, "--attack", attack]
    command += ["--identities", str(identities), "--data-dir", str(data_dir), "--model", swarm.model]
    data_dir.mkdir(exist_ok=True)
    with (data_dir / "stderr.txt").open("w+") as told:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=told, stdin=subprocess.DEVNULL, text=True, env=swarm.environment
        )
        running = Attacker(process)
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                told.seek(0)
                raise RuntimeError(f"the attacker did not start: {told.read()}")
            yield running
        finally:
            process.terminate()
            try:
                line, _ = process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                line, _ = process.communicate()
            counts = json.loads(line) if line else {}
            running.counts.update({name: count for name, count in counts.items() if name != "type"})


@dataclass(slots=True)
class Case:
    """One attack, and the honest client's speed with it."""

    attack: str
    identities: int
    alone: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)
    elsewhere_first_s: list[float] = field(default_factory=list)
    here_first_s: list[float] = field(default_factory=list)
    disturbed: int = 0
    """Chunks of answers under attack that were hedged, resent or computed by the client."""
    counts: Counter[str] = field(default_factory=Counter)
    """What the attacker at the guard sent and got."""

    @property
    def name(self) -> str:
        return self.attack if self.identities == 1 else f"{self.attack}, {self.identities} identities"

    @property
    def ratio(self) -> float:
        """Time a token takes with the attack on the guard, over the time with it elsewhere: median of the rounds."""
        return median(other / guard for other, guard in zip(self.elsewhere, self.here, strict=True))

    def as_json(self) -> dict[str, Any]:
        return {
            "attack": self.attack,
            "identities": self.identities,
            "alone": self.alone,
            "elsewhere": self.elsewhere,
            "here": self.here,
            "elsewhere_first_s": self.elsewhere_first_s,
            "here_first_s": self.here_first_s,
            "ratio": round(self.ratio, 3),
            "disturbed": self.disturbed,
            "counts": dict(self.counts),
        }


class Measurement:
    """A swarm and the answers of its client."""

    def __init__(self, swarm: Swarm, max_tokens: int) -> None:
        self._swarm = swarm
        self._options = ["--privacy", "split", "--ignore-eos", "--max-tokens", str(max_tokens), "--temperature", "0"]
        self._ids: list[int] | None = None

    def answer(self) -> RunResult:
        """One answer of the honest client; raises where it is not the same as ever."""
        result = self._swarm.run(PROMPT, self._options, peers=[0, GUARD])
        if result.returncode:
            raise click.ClickException(result.narration)
        if self._ids is None:
            self._ids = result.token_ids
        if result.token_ids != self._ids:
            raise click.ClickException("the attack changed the answer")
        return result

    def attacked(self, case: Case, victim: int) -> RunResult:
        with attacker(self._swarm, victim, case.attack, case.identities) as running:
            result = self.answer()
        if victim == GUARD:
            case.counts.update(running.counts)
            chunks = result.receipt["chunks"]
            case.disturbed += chunks["hedged"] + chunks["local"] + chunks["lost"]
        return result

    def round(self, case: Case) -> None:
        """Alone, elsewhere, at the guard, and the last two again the other way round."""
        case.alone.append(self.answer().receipt["tokens_per_s"])
        for victim in (UNINVOLVED, GUARD, GUARD, UNINVOLVED):
            receipt = self.attacked(case, victim).receipt
            (case.here if victim == GUARD else case.elsewhere).append(receipt["tokens_per_s"])
            (case.here_first_s if victim == GUARD else case.elsewhere_first_s).append(receipt["ttft_s"])


def cases(attacks: Sequence[str], identities: Sequence[int]) -> list[Case]:
    return [Case(attack, count) for count in identities for attack in attacks]


def table(measured: Sequence[Case]) -> Table:
    """Medians of every case."""
    shown = Table(title="honest client: tokens/s, with a hostile member ...", title_justify="left", box=None)
    headings = (
        "attack",
        "nobody",
        "elsewhere",
        "at its guard",
        "time",
        "first token, elsewhere / guard",
        "disturbed",
    )
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "attack" else "right")
    for case in measured:
        firsts = f"{1000 * median(case.elsewhere_first_s):.0f} / {1000 * median(case.here_first_s):.0f} ms"
        speeds = [f"{median(each):.1f}" for each in (case.alone, case.elsewhere, case.here)]
        shown.add_row(case.name, *speeds, f"{100 * (case.ratio - 1):+.0f} %", firsts, str(case.disturbed))
    return shown


@click.command()
@click.option("--attack", "attacks", type=click.Choice(list(ATTACKS)), multiple=True, help="All by default.")
@click.option("--identities", type=click.IntRange(1, 64), multiple=True, default=[1, 4], show_default=True)
@click.option("--rounds", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option("--max-tokens", type=int, default=64, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One line for each attack, with every figure.")
def main(attacks: tuple[str, ...], identities: tuple[int, ...], rounds: int, max_tokens: int, as_json: bool) -> None:
    """Load a guard, or an uninvolved node, and compare an honest client's tokens a second."""
    console = Console(stderr=True, highlight=False)
    measured = cases(attacks or list(ATTACKS), identities)
    with Swarm() as swarm:
        swarm.start(3)
        measurement = Measurement(swarm, max_tokens)
        measurement.answer()
        for case in measured:
            for _ in range(rounds):
                measurement.round(case)
            console.print(f"{case.name}: {100 * (case.ratio - 1):+.0f} %  {dict(case.counts)}")
            if as_json:
                print(json.dumps(case.as_json()), flush=True)
    console.print(table(measured))


if __name__ == "__main__":
    main()
