"""`scripts/attack NAME`: what one attack does to real nodes, as a row of a table.

Crashes of so many tries, each against a fresh node; the most memory that it had above idle; and the tokens a second
of an honest client that uses the attacked node as a guard, against an undisturbed one and against the same attack on
a node that has nothing to do with it (which shows what the attacker's own use of this machine costs).
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import click

from scripts.attacks.measure import AttackRun, MemoryWatch
from scripts.attacks.stranger import ATTACKS
from scripts.attacks.target import Target
from scripts.harness.honest_client import HonestClient, Pace
from scripts.harness.programs import program
from scripts.harness.swarm import NodeProcess, Swarm

SERVING = program("scripts.attacks.serving")
DEEDS = {f"serving-{deed}": deed for deed in ("push", "reset", "pour", "frames", "junk")}
MEMBERS = {f"member-{name}": name for name in ATTACKS if name.startswith(("crash-", "memory-", "time-"))}
AFTERMATH_S = 2.5
"""A node that has lived so long after an attack has had its heartbeats."""
ATTACKER_GRACE_S = 20.0
SERVING_S = 8.0
"""How long an idle client is watched after its peer turned on it."""


@dataclass(slots=True)
class Row:
    """What was seen of one attack."""

    name: str
    tries: int = 0
    crashes: int = 0
    peak_mib: float = 0.0
    ended: list[str] = field(default_factory=list)
    """What dead nodes said last."""
    undisturbed: Pace | None = None
    beside_uninvolved: Pace | None = None
    attacked: Pace | None = None

    def __str__(self) -> str:
        cells = [self.name, f"{self.tries}", f"{self.crashes}", f"{self.peak_mib:.0f}"]
        for pace in (self.undisturbed, self.beside_uninvolved, self.attacked):
            cells.append("–" if pace is None else f"{pace.tokens_per_s:.1f} ({pace.lent_share:.0%} lent)")
        for pace in (self.undisturbed, self.beside_uninvolved):
            cells.append(self._compared(pace))
        return f"| {' | '.join(cells)} |"

    def _compared(self, other: Pace | None) -> str:
        if self.attacked is None or other is None:
            return "–"
        if self.attacked.lent_share < other.lent_share / 2:
            return "guard lost"  # local work is faster than lent work: a speed would say nothing
        return f"{self.attacked.tokens_per_s / other.tokens_per_s:.2f}"


COLUMNS = (
    "attack",
    "tries",
    "crashes",
    "peak MiB above idle",
    "tokens/s undisturbed",
    "with an uninvolved node attacked",
    "with the guard attacked",
    "attacked : undisturbed",
    "attacked : uninvolved",
)


def attack_of(name: str, swarm: Swarm) -> AttackRun:
    """The attack of this name; a member gets the swarm's key."""
    return AttackRun(MEMBERS[name], swarm.key) if name in MEMBERS else AttackRun(name)


def try_once(row: Row, seconds: float) -> None:
    """One attack on one fresh node."""
    with Swarm() as swarm:
        swarm.start(1)
        node = swarm.nodes[0]
        with MemoryWatch(node) as memory:
            attack_of(row.name, swarm).to_its_end(Target.of(node), seconds, seconds + ATTACKER_GRACE_S)
            count_death(row, node, AFTERMATH_S)
        row.peak_mib = max(row.peak_mib, memory.grown_mib)


def count_death(row: Row, node: NodeProcess, watch_s: float) -> None:
    """Watch a node for so long, or until it is dead; one that is stuck counts as dead."""
    until = time.monotonic() + watch_s
    while node.process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    row.tries += 1
    if node.process.poll() is not None or not HonestClient(node).is_alive():
        row.crashes += 1
        row.ended.append(node.narration().strip().rpartition("\n")[2])


def pace_beside(row: Row, seconds: float) -> None:
    """The honest client's speed: undisturbed, beside the attack on somebody else, and with its guard attacked."""
    with ExitStack() as stack:
        swarm, other = stack.enter_context(Swarm()), stack.enter_context(Swarm())
        swarm.start(2)
        swarm.start(1, options=swarm.bootstrap())
        other.start(1)
        client = HonestClient(swarm.nodes[-1])
        client.ask_for(1.0)  # the session is formed, its peers are measured
        row.undisturbed = client.ask_for(seconds)
        with attack_of(row.name, other).against(Target.of(other.nodes[0]), seconds + ATTACKER_GRACE_S):
            row.beside_uninvolved = client.ask_for(seconds)
        with attack_of(row.name, swarm).against(Target.of(swarm.nodes[0]), seconds + ATTACKER_GRACE_S):
            row.attacked = client.ask_for(seconds)


def serve_once(row: Row, deed: str, seconds: float) -> None:
    """One client whose guard turns on it while it is idle, or between its answers."""
    with Swarm() as swarm:
        swarm.start(1)
        swarm.start(1, {0: ["--deed", deed]}, swarm.bootstrap(), SERVING)
        swarm.start(1, options=swarm.bootstrap())
        node = swarm.nodes[-1]
        client = HonestClient(node)
        with MemoryWatch(node) as memory:
            pace = client.ask_for(seconds if deed == "junk" else 0.0)
            count_death(row, node, 0.0 if deed == "junk" else SERVING_S)
        row.peak_mib = max(row.peak_mib, memory.grown_mib)
        row.attacked = pace if deed == "junk" else None


def serving_pace(row: Row, seconds: float) -> None:
    """What an answer takes where both guards are honest."""
    with Swarm() as swarm:
        swarm.start(2)
        swarm.start(1, options=swarm.bootstrap())
        client = HonestClient(swarm.nodes[-1])
        client.ask_for(1.0)
        row.undisturbed = client.ask_for(seconds)


def measure(name: str, tries: int, seconds: float, with_pace: bool = True) -> Row:
    """Everything about one attack."""
    row = Row(name)
    for _ in range(tries):
        if name in DEEDS:
            serve_once(row, DEEDS[name], seconds)
        else:
            try_once(row, seconds)
    if with_pace and name in DEEDS:
        serving_pace(row, seconds)
    elif with_pace:
        pace_beside(row, seconds)
    return row


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*ATTACKS, *MEMBERS, *DEEDS, "all"]), required=True)
@click.option("--tries", type=click.IntRange(0, 100), default=3, show_default=True, help="Fresh nodes to attack.")
@click.option("--seconds", type=click.FloatRange(1, 60), default=10.0, show_default=True, help="Of one attack.")
@click.option("--no-pace", is_flag=True, help="Leave out the honest client.")
def main(names: tuple[str, ...], tries: int, seconds: float, no_pace: bool) -> None:
    """Attack real nodes on this machine; exit code 1 where one of them died."""
    chosen = [*ATTACKS, *MEMBERS, *DEEDS] if "all" in names else list(names)
    click.echo(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    died = []
    for name in chosen:
        row = measure(name, tries, seconds, not no_pace)
        click.echo(str(row))
        died += row.ended
    for text in sorted(set(died)):
        click.echo(f"a node ended with: {text}")
    sys.exit(bool(died))


if __name__ == "__main__":
    main(prog_name="scripts/attack")
