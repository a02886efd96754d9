"""What membership is to show, as scenarios of the simulator with a verdict each.

scripts/membership spread --nodes 1000
scripts/membership all --nodes 100 --runs 20
scripts/membership chaos --nodes 24 --seed 17        # replays what a failing run printed
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from protocol.membership.actions import Changed, Send
from protocol.membership.messages import Gossip, State
from protocol.membership.records import sign_record
from scripts.membership_lab.simulator import Conditions, SimNode, Simulation

ROUND_S = 0.2
MAX_ROUNDS = 12.0


class Report(Struct):
    """Figures of one run, and what it was to show and did not."""

    scenario: str
    num_nodes: int
    seed: int
    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.failures.append(what)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        verdict = "ok" if not self.failures else "FAILED: " + "; ".join(self.failures[:5]) + self._replay()
        return f"{self.scenario} {self.num_nodes} nodes, seed {self.seed}: {figures}; {verdict}"

    def _replay(self) -> str:
        return f"\n  replay: scripts/membership {self.scenario} --nodes {self.num_nodes} --seed {self.seed}"


Scenario = Callable[[int, int, Conditions], Report]


def spread(num_nodes: int, seed: int, conditions: Conditions, num_changes: int = 200) -> Report:
    """Changes of single nodes, one every 50 ms: how many gossip rounds until all know each."""
    report, sim = Report("spread", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    sim.run(3.0)
    sent_before, time_before = sim.num_messages, sim.now
    sim.run(5.0)
    idle_rate = (sim.num_messages - sent_before) / (sim.now - time_before) / num_nodes
    issued: dict[tuple[str, int], float] = {}
    sim.changes.clear()
    for number in range(num_changes):
        record = sim.change_facts(sim.rng.choice(sim.nodes), memory_bytes=1000 + number)
        issued[record.peer_id, record.seq] = sim.now
        sim.run(0.05)
    sim.run(15.0)
    arrivals: dict[tuple[str, int], set[int]] = {key: set() for key in issued}
    last: dict[tuple[str, int], float] = {}
    all_delays: list[float] = []
    of_peer: dict[str, list[tuple[str, int]]] = {}
    for key in issued:
        of_peer.setdefault(key[0], []).append(key)
    for at, observer, change in sim.changes:
        for key in of_peer.get(change.peer, []):
            if key[1] <= change.record.seq and observer not in arrivals[key]:
                arrivals[key].add(observer)
                last[key] = at - issued[key]
                all_delays.append(last[key])
    missing = sum(num_nodes - 1 - len(known) for known in arrivals.values())
    rounds = sorted(delay_s / ROUND_S for delay_s in last.values())
    report.figures = {
        "rounds until all know, p50": percentile(rounds, 0.5),
        "p99": percentile(rounds, 0.99),
        "max": rounds[-1],
        "rounds until one knows, p99": percentile(sorted(all_delays), 0.99) / ROUND_S,
        "messages a second and node, idle": idle_rate,
        "with twenty changes a second": (sim.num_messages - sent_before) / (sim.now - time_before) / num_nodes,
    }
    report.expect(missing == 0, f"{missing} times a node did not learn of a change")
    report.expect(report.figures["p99"] < MAX_ROUNDS, f"p99 is {report.figures['p99']:.1f} rounds")
    report.expect(not sim.deaths_of(sim.nodes), "somebody was declared dead")
    return report


def slow(num_nodes: int, seed: int, conditions: Conditions, seconds: float = 120.0) -> Report:
    """5 % of the nodes pause for seconds, again and again: nobody is to be declared dead."""
    report, sim = Report("slow", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    tired = sim.rng.sample(sim.nodes, max(1, num_nodes // 20))
    for node in tired:
        sim.make_slow(node, pause_s=(1.0, 5.0), awake_s=(0.5, 5.0))
    sim.run(seconds)
    deaths = sim.deaths_of(sim.nodes)
    suspected = {change.peer for _, _, change in sim.changes if change.state is State.SUSPECT}
    sound = {node.peer_id for node in sim.nodes} - {node.peer_id for node in tired}
    report.figures = {
        "simulated s": seconds,
        "slow nodes": len(tired),
        "false deaths": len(deaths),
        "slow nodes suspected": len(suspected - sound),
        "sound nodes suspected": len(suspected & sound),
        "messages a second and node": sim.num_messages / seconds / num_nodes,
    }
    report.expect(not deaths, f"{len(deaths)} false deaths, first: {_told(deaths)}")
    return report


def crash(num_nodes: int, seed: int, conditions: Conditions) -> Report:
    """A node is killed: when does the first, when does the last node know?"""
    report, sim = Report("crash", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    sim.run(5.0)
    sim.changes.clear()
    victim, killed_at = sim.rng.choice(sim.nodes), sim.now
    sim.crash(victim)
    detected = sim.run(120.0, until=lambda: all(sim.state(node, victim) is State.DEAD for node in sim.up()))
    seen = [(at - killed_at, change.state) for at, _, change in sim.changes if change.peer == victim.peer_id]
    suspected = [at for at, state in seen if state is State.SUSPECT]
    dead = [at for at, state in seen if state is State.DEAD]
    report.figures = {
        "first suspicion s": min(suspected, default=-1.0),
        "first verdict s": min(dead, default=-1.0),
        "last verdict s": max(dead, default=-1.0),
    }
    report.expect(detected, "not all know of the crash after 120 s")
    others = sim.deaths_of(node for node in sim.nodes if node is not victim)
    report.expect(not others, f"false deaths: {_told(others)}")
    return report


def partition(num_nodes: int, seed: int, conditions: Conditions, seconds: float = 180.0) -> Report:
    """Cut in two for minutes, then healed: both sides bury each other, then agree again."""
    report, sim = Report("partition", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    sim.run(3.0)
    away = sim.rng.sample(sim.nodes, num_nodes // 2)
    sim.divide(away)
    sim.run(seconds)
    here = [node for node in sim.nodes if node.side == 0]
    buried = sum(sim.state(one, other) is State.DEAD for one in here for other in away)
    sim.change_facts(away[0], memory_bytes=77)
    sim.changes.clear()
    sim.heal()
    healed_at = sim.now
    agreed = sim.run(120.0, until=lambda: not sim.disagreements(exact=False))
    report.figures = {
        "cut for s": seconds,
        "buried": buried / (len(here) * len(away)),
        "all found again after s": sim.now - healed_at,
    }
    report.expect(buried == len(here) * len(away), "not all of the other side was found dead")
    report.expect(agreed, f"not all were found again: {sim.disagreements(exact=False)[:3]}")
    _settle(sim, report)
    return report


def farewell(num_nodes: int, seed: int, conditions: Conditions) -> Report:
    """A node leaves; records from before that do not bring it back. Then it comes again at another address."""
    report, sim = Report("farewell", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    sim.run(3.0)
    leaver, old, left_at = sim.nodes[0], sim.nodes[0].running.record, sim.now
    sim.leave(leaver)
    known = sim.run(30.0, until=lambda: all(sim.state(node, leaver) is State.LEFT for node in sim.nodes[1:]))
    report.figures["left, known by all after s"] = sim.now - left_at
    report.expect(known, "not all know that it left")
    replayer = sim.nodes[1]
    sim.perform(replayer, [Send(node.peer_id, Gossip((old.envelope,))) for node in sim.nodes[2:]])
    sim.run(20.0)
    gone = all(sim.state(node, leaver) is State.LEFT for node in sim.nodes[1:])
    report.expect(gone, "an old record brought it back")
    sim.start(leaver, address="/ip4/10.9.9.9/tcp/4711")
    started_at = sim.now
    sim.join(leaver, through=sim.nodes[2])
    report.expect(sim.run(60.0, until=lambda: not sim.disagreements(exact=False)), "not all know that it is back")
    report.figures["back, known by all after s"] = sim.now - started_at
    _settle(sim, report)
    return report


def restart(num_nodes: int, seed: int, conditions: Conditions) -> Report:
    """A node is killed and comes back at another address, before and after it was found dead."""
    report, sim = Report("restart", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    sim.run(3.0)
    for number, away_s in enumerate((1.0, 60.0)):
        node = sim.nodes[number]
        sim.crash(node)
        sim.run(away_s)
        address = f"/ip4/10.8.{number}.1/tcp/4712"
        sim.start(node, address=address)
        started_at = sim.now
        sim.join(node, through=sim.nodes[5])
        agreed = sim.run(60.0, until=lambda: not sim.disagreements(exact=False))
        report.figures[f"away {away_s:g} s, known by all after s"] = sim.now - started_at
        entries = [other.running.peer(node.peer_id) for other in sim.nodes if other is not node]
        moved = all(entry is not None and entry.record.facts.addrs == (address,) for entry in entries)
        report.expect(agreed and moved, f"not known to all: {sim.disagreements(exact=False)[:3]}")
    _settle(sim, report)
    return report


def dishonest(num_nodes: int, seed: int, conditions: Conditions) -> Report:
    """Forged, altered and replayed records, false accusations, and two records with one seq."""
    report, sim = Report("dishonest", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    sim.start_all_acquainted()
    sim.run(3.0)
    attacker, victim, twin = sim.nodes[0], sim.nodes[1], sim.nodes[2]
    old = victim.running.record
    sim.change_facts(victim, memory_bytes=5)
    sim.run(10.0)
    true = victim.running.record
    signed_by_attacker = bytearray(sign_record(attacker.identity, true.facts, true.seq + 9).envelope)
    signed_by_attacker[6:38] = true.public_key
    altered = bytearray(sign_record(victim.identity, old.facts, true.seq + 9).envelope)
    altered[90] ^= 1
    bad = Gossip((bytes(signed_by_attacker), bytes(altered), true.envelope[:-1]))
    others = [node for node in sim.nodes if node is not attacker]
    sim.perform(attacker, [Send(node.peer_id, bad) for node in others for _ in range(3)])
    sim.perform(attacker, [Send(node.peer_id, Gossip((old.envelope,))) for node in others])
    sim.run(10.0)
    held = [node.running.peer(victim.peer_id) for node in others if node is not victim]
    report.expect(
        all(entry is not None and entry.record == true for entry in held), "a forged or old record was believed"
    )
    report.expect(len({index for index, _ in sim.misbehaved}) >= len(others) - 1, "forgeries were not reported")
    base = twin.running.record
    forks = [sign_record(twin.identity, replace(base.facts, agent=agent), base.seq + 1) for agent in ("one", "two")]
    for number, record in enumerate(forks):
        sim.perform(twin, [Send(node.peer_id, Gossip((record.envelope,))) for node in sim.nodes[3 + number :: 2]])
    honest = [node for node in sim.nodes if node is not twin]
    flagged_at = sim.now
    sim.run(30.0, until=lambda: all(_is_flagged(node, twin) for node in honest))
    report.figures = {
        "reports of forgeries": len(sim.misbehaved),
        "equivocator flagged by": sum(_is_flagged(node, twin) for node in honest) / len(honest),
        "after s": sim.now - flagged_at,
    }
    report.expect(all(_is_flagged(node, twin) for node in honest), "not all flagged the equivocator")
    return report


def chaos(num_nodes: int, seed: int, conditions: Conditions) -> Report:
    """Everything at random for two minutes, then quiet: all that run must agree on all."""
    report, sim = Report("chaos", num_nodes, seed), Simulation(num_nodes, seed, conditions)
    for node in sim.nodes:
        sim.start(node)
        if node.index:
            sim.join(node, through=sim.nodes[0])
    sim.run(5.0)
    deeds = [_crash_one, _start_one, _start_one, _leave_one, _change_one, _change_one, _divide, _heal, _pause_one]
    for number in range(40):
        sim.rng.choice(deeds)(sim, number)
        sim.run(sim.rng.uniform(0.1, 6.0))
    sim.heal()
    quiet_at = sim.now
    agreed = sim.run(180.0, until=lambda: not sim.disagreements(exact=False))
    report.figures = {"up": len(sim.up()), "agreed after s": sim.now - quiet_at}
    report.expect(agreed, f"not all hold the right view: {sim.disagreements(exact=False)[:3]}")
    _settle(sim, report)
    return report


def _settle(sim: Simulation, report: Report) -> None:
    """On a network that loses nothing, all tables become equal to the last bit."""
    sim.conditions = replace(sim.conditions, loss=0.0)
    quiet_at = sim.now
    report.expect(sim.run(120.0, until=sim.converged), f"no agreement: {sim.disagreements()[:3]}")
    report.figures["without loss equal after s"] = sim.now - quiet_at


def _crash_one(sim: Simulation, number: int) -> None:
    up = sim.up()
    if len(up) > len(sim.nodes) // 2:
        sim.crash(sim.rng.choice(up))


def _start_one(sim: Simulation, number: int) -> None:
    down = [node for node in sim.nodes if node.membership is None]
    if down:
        node, through = sim.rng.choice(down), sim.rng.choice(sim.up())
        sim.start(node, address=f"/ip4/10.7.{number}.{node.index}/tcp/4711" if sim.rng.random() < 0.5 else None)
        node.side = through.side
        sim.join(node, through)


def _leave_one(sim: Simulation, number: int) -> None:
    up = sim.up()
    if len(up) > len(sim.nodes) // 2:
        sim.leave(sim.rng.choice(up))


def _change_one(sim: Simulation, number: int) -> None:
    sim.change_facts(sim.rng.choice(sim.up()), memory_bytes=number)


def _divide(sim: Simulation, number: int) -> None:
    sim.divide(sim.rng.sample(sim.nodes, sim.rng.randrange(1, len(sim.nodes) // 2)))


def _heal(sim: Simulation, number: int) -> None:
    sim.heal()


def _pause_one(sim: Simulation, number: int) -> None:
    sim.pause(sim.rng.choice(sim.up()), sim.rng.uniform(0.5, 15.0))


def _is_flagged(observer: SimNode, subject: SimNode) -> bool:
    entry = observer.running.peer(subject.peer_id)
    return entry is not None and entry.equivocated


def _told(deaths: list[tuple[float, int, Changed]]) -> str:
    return "" if not deaths else f"at {deaths[0][0]:.1f} s node {deaths[0][1]} buried {deaths[0][2].peer}"


def percentile(ordered: list[float], share: float) -> float:
    """Of an ascending list; the nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


SCENARIOS: dict[str, Scenario] = {
    "spread": spread,
    "slow": slow,
    "crash": crash,
    "partition": partition,
    "farewell": farewell,
    "restart": restart,
    "dishonest": dishonest,
    "chaos": chaos,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/membership", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1, help="as many seeds, from --seed on")
    parser.add_argument("--loss", type=float, default=0.1)
    parser.add_argument("--encoded", action="store_true", help="send every message through its CBOR form")
    options = parser.parse_args()
    conditions = Conditions(loss=options.loss, encoded=options.encoded)
    failed = False
    for name in SCENARIOS if options.scenario == "all" else [options.scenario]:
        for seed in range(options.seed, options.seed + options.runs):
            started = time.perf_counter()
            report = SCENARIOS[name](options.nodes, seed, conditions)
            print(f"{report} ({time.perf_counter() - started:.1f} s)", flush=True)
            failed |= bool(report.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
