"""`scripts/members`: what an honest client pays for a hostile member that loads one of its guards.

Three real nodes and a client on this machine: the client's answers go in `split` over the first two, and an attacker
that has the swarm's key loads either the second (its guard) or the third, with which the client has nothing to do.
Both loads take the same from the processors, so the ratio shows what the guard itself lets through. Runs are taken in
turn, round after round, so that a drift of the machine hits all of them alike; medians are printed.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Self

import click
from rich.console import Console
from rich.table import Table

from node.config import NodeConfig
from node.engine import Engine
from node.execution.config import ExecutionConfig
from node.model.sampling import SamplingParams
from node.node import Node
from node.privacy import Privacy
from node.session.config import SessionConfig
from node.session.receipt import Receipt
from node.store.library import Library
from protocol.identity import Identity
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.attacks.hostile_member import ATTACKS
from scripts.harness.asking import answer
from scripts.harness.programs import program
from scripts.harness.swarm import Swarm

PROMPT = "Once upon a time, there was a little girl named Lily."
PROGRAM = program("scripts.attacks.hostile_member")
GUARD, UNINVOLVED = 1, 2
STOP_TIMEOUT_S = 20.0
LINK_TIMEOUT_S = 20.0
PATIENT = ExecutionConfig(hedge_floor_s=20.0, hedge_unmeasured_s=20.0, exchange_s=20.0, credit_s=60.0)
"""The client computes nothing itself that a guard answers late: what the guard lets through is to be seen."""


class Attacker:
    """The process of some members that load nodes of a swarm when they are told to; a context manager."""

    def __init__(self, swarm: Swarm, victims: Sequence[int], identities: int) -> None:
        data_dir = swarm.folder / "attacker"
        data_dir.mkdir(exist_ok=True)
        command = [*PROGRAM, "--identities", str(identities), "--data-dir", str(data_dir), "--model", swarm.model]
        for victim in victims:
            command += ["--target", swarm.nodes[victim].address]
        self._victims = list(victims)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=swarm.environment
        )

    def __enter__(self) -> Self:
        self._hear()
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def begin(self, victim: int, attack: str, identities: int) -> Counter[str]:
        """Load a node from now on; how many of its members were kept out and came again under a new key."""
        return self._say({"attack": attack, "target": self._victims.index(victim), "identities": identities})

    def end(self) -> Counter[str]:
        """Stop, and take back what was asked for; what was sent, and what came back by kind."""
        return self._say({})

    def _say(self, command: dict[str, Any]) -> Counter[str]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Counter[str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the attacker has ended")
        return Counter({name: count for name, count in json.loads(line).items() if name != "type"})


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


class HonestClient:
    """A node of this process that answers a prompt in `split` over two guards; a context manager."""

    def __init__(self, swarm: Swarm, max_tokens: int) -> None:
        self._library = Library(swarm.folder / "client")
        self._model = self._library.resolve(swarm.model)
        guards = tuple(parse_multiaddr(swarm.nodes[index].address) for index in (0, GUARD))
        key = SwarmKey(bytes.fromhex(swarm.key))
        identity = Identity.from_seed(secrets.token_bytes(32))
        self._node = Node(NodeConfig(identity, None, guards, swarm.threads, swarm_key=key), [self._model])
        self._params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        self._prompt = self._model.tokenizer().encode(PROMPT)
        self._text: str | None = None

    def __enter__(self) -> Self:
        self._node.__enter__()
        addresses = [str(address) for address in self._node.config.bootstrap]
        self._node.registry.wait_settled(addresses, 0, LINK_TIMEOUT_S)
        if len(self._node.registry.usable()) != len(addresses):
            raise click.ClickException("the guards cannot be reached")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._node.__exit__()

    def answer(self) -> Receipt:
        """One answer; raises where its text is not the same as ever."""
        with Engine(self._node, self._library, SessionConfig(execution=PATIENT)) as engine:
            _tokens, receipt = answer(engine, self._model, self._prompt, self._params, Privacy.SPLIT)
        if self._text is None:
            self._text = receipt.text
        if receipt.text != self._text:
            raise click.ClickException("the attack changed the answer")
        return receipt


class Measurement:
    """An honest client and an attacker that loads one of its guards, or somebody else."""

    def __init__(self, client: HonestClient, attacker: Attacker) -> None:
        self._client, self._attacker = client, attacker

    def attacked(self, case: Case, victim: int) -> Receipt:
        counts = self._attacker.begin(victim, case.attack, case.identities)
        receipt = self._client.answer()
        counts += self._attacker.end()
        if victim == GUARD:
            case.counts.update(counts)
            case.disturbed += receipt.chunks.hedged + receipt.chunks.local + receipt.chunks.lost
        return receipt

    def round(self, case: Case) -> None:
        """Alone, elsewhere, at the guard, and the last two again the other way round."""
        case.alone.append(self._client.answer().tokens_per_s)
        for victim in (UNINVOLVED, GUARD, GUARD, UNINVOLVED):
            receipt = self.attacked(case, victim)
            (case.here if victim == GUARD else case.elsewhere).append(receipt.tokens_per_s)
            (case.here_first_s if victim == GUARD else case.elsewhere_first_s).append(receipt.ttft_s)


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
        with (
            HonestClient(swarm, max_tokens) as client,
            Attacker(swarm, (GUARD, UNINVOLVED), max(identities)) as attacker,
        ):
            client.answer()
            for case in measured:
                for _ in range(rounds):
                    Measurement(client, attacker).round(case)
                console.print(f"{case.name}: {100 * (case.ratio - 1):+.0f} %  {dict(case.counts)}")
                if as_json:
                    print(json.dumps(case.as_json()), flush=True)
    console.print(table(measured))


if __name__ == "__main__":
    main(prog_name="scripts/members")
