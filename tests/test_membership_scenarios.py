"""Whole swarms in simulated time. A failing run prints the command that replays it."""

from collections.abc import Callable
from functools import partial

import pytest

from protocol.membership.messages import State
from scripts.membership_lab.scenarios import (
    Report,
    chaos,
    crash,
    dishonest,
    farewell,
    partition,
    restart,
    slow,
    spread,
)
from scripts.membership_lab.simulator import Conditions, Simulation

LOSSY = Conditions(loss=0.1)
ENCODED = Conditions(loss=0.1, encoded=True)

RUNS: dict[str, Callable[[], Report]] = {
    "a change is known by 100 nodes within 12 rounds": partial(spread, 100, 1, LOSSY, num_changes=60),
    "a change is known by 50 nodes within 12 rounds": partial(spread, 50, 41, LOSSY),
    "nobody dies of slow nodes": partial(slow, 100, 1, LOSSY, seconds=30.0),
    "a crash is found by all": partial(crash, 100, 1, LOSSY),
    "a partition of minutes heals": partial(partition, 40, 1, LOSSY),
    "leaving is final, and coming back is possible": partial(farewell, 30, 1, ENCODED),
    "a new address wins": partial(restart, 30, 1, ENCODED),
    "the dishonest are refused and flagged": partial(dishonest, 30, 1, ENCODED),
    "a pair of nodes finds a crash": partial(crash, 2, 1, LOSSY),
}


@pytest.mark.parametrize("name", RUNS)
def test_scenario(name: str) -> None:
    report = RUNS[name]()
    assert not report.failures, str(report)


@pytest.mark.parametrize("seed", range(100, 106))
def test_chaos_ends_in_agreement(seed: int) -> None:
    report = chaos(12, seed, ENCODED)
    assert not report.failures, str(report)


def test_a_seed_replays_a_run() -> None:
    def trace(seed: int) -> list[tuple[float, int, object]]:
        sim = Simulation(10, seed, LOSSY)
        sim.start_all_acquainted()
        sim.make_slow(sim.nodes[3], (1.0, 5.0), (0.5, 2.0))
        sim.run(30.0)
        return [(at, observer, change) for at, observer, change in sim.changes]

    assert trace(4) == trace(4) != trace(5)


def test_a_swarm_larger_than_a_digest_is_learned_from_one_peer() -> None:
    """1100 peers are two pages of digest and some frames of records; every message fits into a control frame."""
    sim = Simulation(1100, 1, Conditions(loss=0.0, encoded=True))
    for node in sim.nodes[1:]:
        node.membership = None
        sim.start(node)
    envelopes = [node.running.record.envelope for node in sim.nodes[1:]]
    for node in sim.nodes[2:]:
        sim.crash(node)
    teacher, pupil = sim.nodes[1], sim.nodes[0]
    teacher.running.load(sim.now, envelopes)
    sim.start(pupil)
    sim.join(pupil, teacher)
    for _ in range(15):
        sim.perform(pupil, pupil.running.link_up(sim.now, teacher.peer_id, dialled=True))
        sim.run(1.0)
    assert len(pupil.running.peers()) == 513, "what one sender may introduce in a minute, and itself"
    for _ in range(150):
        sim.perform(pupil, pupil.running.link_up(sim.now, teacher.peer_id, dialled=True))
        sim.run(1.0)
    learned = {entry.record.peer_id for entry in pupil.running.peers()}
    held = [entry for entry in teacher.running.peers() if entry.state <= State.SUSPECT]
    assert len(held) > 1024 and all(
        entry.record.peer_id in learned for entry in held if entry.record != pupil.running.record
    )
