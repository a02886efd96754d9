"""A hostile member loads a guard: real processes, an honest client beside it. What it loses is counted, not timed."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from node.execution.ledger import ChunkCounts
from scripts.attacks.member_load import GUARD, Attacker, HonestClient
from scripts.harness.swarm import Swarm

pytestmark = pytest.mark.swarm

TOKENS = 8


@dataclass(frozen=True, slots=True)
class Loaded:
    """Two guards, their client, and members that load one of them when they are told to."""

    client: HonestClient
    attacker: Attacker


@pytest.fixture(scope="module")
def guards() -> Iterator[Loaded]:
    with Swarm() as swarm:
        swarm.start(2)
        with HonestClient(swarm, TOKENS) as client, Attacker(swarm, [GUARD], 2) as attacker:
            yield Loaded(client, attacker)


@pytest.mark.parametrize("attack", ["shares", "seeds", "rows"])
def test_a_member_that_loads_a_guard_takes_no_chunk_from_an_honest_client(guards: Loaded, attack: str) -> None:
    """The answer is the same, every chunk of it is the guards', and the attacker got what the client left."""
    quiet = guards.client.answer()
    guards.attacker.begin(GUARD, attack, 2)
    loaded = guards.client.answer()
    counts = guards.attacker.end()
    assert loaded.text == quiet.text
    _all_by_guards(loaded.chunks)
    assert counts["sent"] > 0
    assert counts["LinearResult"] > 0
    if attack == "seeds":  # more than may wait
        assert counts["error 8"] > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("cheap", "it sent too many messages against the format"),
        ("cancels", "it sent too many messages beyond its part of the time"),
        ("unread", "it sent too many messages beyond its part of the time"),
    ],
)
def test_a_member_that_floods_or_sends_garbage_is_kept_out_and_the_honest_client_is_not(
    attack: str, reason: str
) -> None:
    with Swarm() as swarm:
        swarm.start(2)
        with HonestClient(swarm, TOKENS) as client, Attacker(swarm, [GUARD], 1) as attacker:
            attacker.begin(GUARD, attack, 1)
            loaded = client.answer()
            attacker.end()
            assert attacker.begin(GUARD, "rows", 1)["kept out"] == 1
            attacker.end()
            assert client.answer().text == loaded.text
            kept_out = (swarm.nodes[GUARD].data_dir / "access.json").read_text()
        assert reason in kept_out
        _all_by_guards(loaded.chunks)


def _all_by_guards(chunks: ChunkCounts) -> None:
    assert chunks.verified == chunks.merged > 0
    assert chunks.hedged == chunks.local == chunks.rejected == chunks.lost == 0
