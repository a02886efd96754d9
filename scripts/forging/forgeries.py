"""`scripts/forgeries`: forged results of the built-in model's units at a client's gate, of every kind, and controls.

Every forged result goes the way of a real one: encoded by the forger, decoded, and given to the function that the
client uses. Exit code 0 only if no forgery passed, every honest result did, and each weak check let pass what it
should.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from node.kernels import select_kernels
from node.kernels.interface import Kernels
from protocol.linear.messages import WorkResult
from scripts.forging.control import Control, known_control, weak_control
from scripts.forging.gate import ClientGate
from scripts.forging.kinds import KINDS, Kind, Scene
from scripts.forging.target import Target, Targets, all_units

BATCH = 16
"""Forgeries of one kind for one request."""
CONFIRMED_EACH = 64
"""The last forgery of so many batches is confirmed as before a ban."""
CONTROL_SHARE = 20
"""A control is a twentieth of the count, within bounds."""
CONTROL_MIN, CONTROL_MAX = 4_000, 100_000


@dataclass(slots=True)
class Count:
    """What came of all forgeries."""

    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    honest: int = 0
    honest_refused: int = 0
    confirmed: int = 0
    direct: int = 0
    """Results that both forms of the gate judged, alike."""
    controls: list[Control] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything is as claimed."""
        tried_all = all(self.tried[kind.name] for kind in KINDS)
        return (
            tried_all
            and not self.accepted.total()
            and not self.honest_refused
            and all(control.holds for control in self.controls)
        )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "forgeries": self.tried.total(),
            "accepted": self.accepted.total(),
            "confirmed": self.confirmed,
            "direct": self.direct,
            "honest": self.honest,
            "honest_refused": self.honest_refused,
            "kinds": {kind.name: [self.tried[kind.name], self.accepted[kind.name]] for kind in KINDS},
            "controls": [
                {
                    "name": control.name,
                    "tried": control.tried,
                    "accepted": control.accepted,
                    "expected": round(control.expected, 1),
                    "slack": round(control.slack, 1),
                    "holds": control.holds,
                }
                for control in self.controls
            ],
            "holds": self.holds,
        }


class Forger:
    """Forges results and counts which pass."""

    def __init__(self, targets: Targets, gate: ClientGate, kernels: Kernels, random: np.random.Generator) -> None:
        self._targets, self._gate, self._kernels, self._random = targets, gate, kernels, random
        self._batches = 0
        self.count = Count()

    def forge(self, number: int) -> None:
        """Forge at least so many results, of all kinds in turn, with honest ones between them."""
        while self.count.tried.total() < number:
            target = self._targets.next()
            earlier = self._targets.like(target).honest
            for kind in KINDS:
                if target.request.binding.num_rows >= kind.min_rows:
                    self._try(kind, target, earlier)
                    self._honest(target)
        self.count.confirmed, self.count.direct = self._gate.confirmed, self._gate.direct

    def _try(self, kind: Kind, target: Target, earlier: WorkResult) -> None:
        scene = Scene(target, self._random, self._kernels, self._gate.check_of(target.unit), earlier)
        self._batches += 1
        forged = list(kind.forge(scene, BATCH))
        for number, result in enumerate(forged, 1):
            confirm = number == len(forged) and self._batches % CONFIRMED_EACH == 0
            self.count.tried[kind.name] += 1
            self.count.accepted[kind.name] += self._gate.accepts(target, result, confirm)

    def _honest(self, target: Target) -> None:
        self.count.honest += 1
        self.count.honest_refused += not self._gate.accepts(target, target.honest)


def forge_all(number: int, seed: int) -> Count:
    """So many forgeries, and the controls."""
    kernels, random = select_kernels(1), np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory(prefix="kek-forgeries-") as folder,
        Targets(kernels, Path(folder), random) as targets,
        ExitStack() as exits,
    ):
        model = targets.model
        gate = ClientGate(kernels, all_units(model), lambda unit: model.confirm(unit.ref))
        exits.callback(gate.close)
        forger = Forger(targets, gate, kernels, random)
        forger.forge(number)
        controlled = min(max(number // CONTROL_SHARE, CONTROL_MIN), CONTROL_MAX)
        forger.count.controls = [
            weak_control(targets, kernels, random, controlled, k=1, s=256),
            weak_control(targets, kernels, random, controlled, k=2, s=16),
            known_control(targets, gate, kernels, random, controlled // CONTROL_SHARE),
        ]
        return forger.count


def table(count: Count) -> Sequence[str]:
    """For people."""
    width = max(len(kind.name) for kind in KINDS)
    lines = [f"{'forgery':{width}}  {'tried':>9}  accepted"]
    lines += [f"{kind.name:{width}}  {count.tried[kind.name]:9,}  {count.accepted[kind.name]:8,}" for kind in KINDS]
    lines += [f"{'all':{width}}  {count.tried.total():9,}  {count.accepted.total():8,}", ""]
    lines.append(f"{count.confirmed:,} refusals were confirmed with weights read again and fresh vectors")
    lines.append(f"{count.direct:,} results of few rows were judged by both forms of the gate, which agreed")
    lines.append(f"{count.honest:,} honest results between them: {count.honest_refused:,} refused")
    for control in count.controls:
        verdict = "as expected" if control.holds else "NOT AS EXPECTED"
        lines.append(
            f"control, {control.name}: {control.accepted:,} of {control.tried:,} accepted, "
            f"{control.expected:,.0f} ± {control.slack:,.0f} expected: {verdict}"
        )
    return lines


@click.command()
@click.option("--count", "number", type=click.IntRange(1), default=1_000_000, show_default=True, help="Forgeries.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the forger; the gate's secrets are random.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def main(number: int, seed: int, is_json: bool) -> None:
    """Forge results of every kind at a client's gate; exit code 1 where one passes or an honest one does not."""
    count = forge_all(number, seed)
    click.echo(json.dumps(count.as_json(), indent=1) if is_json else "\n".join(table(count)))
    sys.exit(not count.holds)


if __name__ == "__main__":
    main(prog_name="scripts/forgeries")
