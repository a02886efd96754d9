"""Coverage that lasts: who takes over, who drops, nobody twice; a hundred nodes that see each other late."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from node.transfer.choice import LayerView, choose_layers, start_of
from node.transfer.coverage import HANDOVER_S, SHORT_S, TURN_S, Coverage, Holding, Move
from protocol.identity import PeerId

MODEL = bytes(32)
SIZE = 1000


def holding(
    name: str, layers: set[int], room: int = 0, leaving: set[int] | None = None, operator: str = ""
) -> Holding:
    owner = (operator or name).encode()
    return Holding(PeerId(name), owner, frozenset(layers), frozenset(leaving or ()), room * SIZE)


def moves(num_layers: int, nodes: list[Holding], now: float) -> dict[str, Move]:
    """What each node does that has seen the same for so long."""
    decided = {}
    for node in nodes:
        coverage = Coverage(MODEL, [SIZE] * num_layers)
        others = [other for other in nodes if other is not node]
        coverage.step(0.0, node, others)
        decided[str(node.peer_id)] = coverage.step(now, node, others)
    return decided


def takers(decided: dict[str, Move], layer: int) -> list[str]:
    return [name for name, move in decided.items() if layer in move.take]


def test_a_layer_with_one_holder_is_taken_by_one_node_that_has_room_after_a_while() -> None:
    nodes = [holding("a", {0, 1}), holding("b", {1, 2}), holding("c", {2}, room=1), holding("d", {2, 1}, room=1)]
    assert not any(move.take for move in moves(3, nodes, SHORT_S - 0.1).values()), "a restart causes no fetch"
    first = takers(moves(3, nodes, SHORT_S), 0)
    assert len(first) == 1 and first[0] in ("c", "d")
    assert sorted(takers(moves(3, nodes, SHORT_S + TURN_S + 0.1), 0)) == ["c", "d"], "the next one's turn"


def test_a_device_of_the_same_owner_adds_nothing_where_there_are_others() -> None:
    nodes = [holding("a", {0}, operator="x"), holding("b", {1}, room=1, operator="x"), holding("c", {1}, room=1)]
    assert takers(moves(2, nodes, 1000.0), 0) == ["c"]
    own = [holding("a", {0}, operator="x"), holding("b", {1}, room=1, operator="x")]
    assert takers(moves(2, own, 1000.0), 0) == ["b"], "with own devices alone, two devices are what there is"


def test_who_is_full_drops_what_enough_others_hold_and_nobody_else_drops_it_then() -> None:
    nodes = [holding("a", {0}), *(holding(name, {1}) for name in "bcde")]
    decided = moves(2, nodes, 1000.0)
    assert len(takers(decided, 0)) == 1
    (taker,) = takers(decided, 0)
    assert decided[taker].drop == {1}
    assert [move.drop for name, move in decided.items() if name != taker] == [frozenset()] * 4


def test_nobody_drops_what_would_then_be_short() -> None:
    nodes = [holding("a", {0}), holding("b", {1}), holding("c", {1})]
    assert all(move == Move() for move in moves(2, nodes, 1000.0).values())


def test_what_nobody_serves_cannot_be_taken() -> None:
    assert all(not move.take for move in moves(2, [holding("a", {0}, 5), holding("b", {0}, 5)], 1000.0).values())


def test_with_less_memory_layers_are_served_until_others_hold_them() -> None:
    coverage = Coverage(MODEL, [SIZE] * 3)
    shrunk = holding("a", {0, 1, 2}, room=-2)
    once, twice = holding("b", {0, 1}), holding("c", {0})
    first = coverage.step(0.0, shrunk, [once, twice])
    assert first.drop == {0} and first.leaving == {1} and not first.take, "the layer that nobody else has is kept"
    after = holding("a", {2}, room=-1, leaving={1})
    assert coverage.step(1.0, after, [once, twice]) == Move(leaving=frozenset({1}))
    taken_over = [holding("b", {0, 1}), holding("c", {0, 1})]
    assert coverage.step(2.0, after, taken_over) == Move(drop=frozenset({1}))


def test_a_layer_that_nobody_takes_over_is_dropped_in_the_end() -> None:
    coverage = Coverage(MODEL, [SIZE] * 2)
    shrunk = holding("a", {0, 1}, room=-1)
    assert coverage.step(0.0, shrunk, []) == Move(leaving=frozenset({1}))
    after = holding("a", {0}, room=-1, leaving={1})
    assert coverage.step(HANDOVER_S - 1, after, []) == Move(leaving=frozenset({1}))
    assert coverage.step(HANDOVER_S, after, []) == Move(drop=frozenset({1}))


def test_what_leaves_counts_for_nothing_and_can_be_fetched() -> None:
    nodes = [holding("a", {1}, leaving={0}), holding("b", {1}, room=1), holding("c", {1, 0})]
    assert takers(moves(2, nodes, SHORT_S), 0) == ["b"]


def test_with_more_memory_again_nothing_leaves() -> None:
    coverage = Coverage(MODEL, [SIZE] * 2)
    assert coverage.step(0.0, holding("a", {0}, room=0, leaving={1}), []) == Move()


class Crowd:
    """Nodes that decide every two seconds or so, from what they saw of each other a while ago."""

    def __init__(self, num_layers: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.num_layers = num_layers
        self.now = 0.0
        self.held: dict[str, set[int]] = {}
        self.leaving: dict[str, set[int]] = {}
        self.memory: dict[str, int] = {}
        self.coverage: dict[str, Coverage] = {}
        self.coming: list[tuple[float, str, int]] = []
        self.past: list[dict[str, Holding]] = []
        self.num_moves = 0
        self.worst: list[int] = []

    def join(self, name: str, memory: int) -> None:
        views = [LayerView(i, SIZE, count, float(count)) for i, count in enumerate(self.counts())]
        chosen = choose_layers(views, memory * SIZE, start_of(PeerId(name), self.num_layers))
        self.held[name], self.leaving[name], self.memory[name] = set(chosen), set(), memory
        self.coverage[name] = Coverage(MODEL, [SIZE] * self.num_layers)

    def counts(self) -> list[int]:
        """Holders of every layer that will keep it."""
        return [sum(layer in held for held in self.held.values()) for layer in range(self.num_layers)]

    def told(self, name: str) -> Holding:
        room = self.memory[name] - len(self.held[name]) - len(self.leaving[name])
        return holding(name, self.held[name], room, self.leaving[name])

    def kill(self, names: list[str]) -> None:
        for name in names:
            for state in (self.held, self.leaving, self.memory, self.coverage):
                del state[name]
        self.coming = [each for each in self.coming if each[1] in self.held]

    def run(self, seconds: int, lag: Callable[[], int], fetch_s: float = 4.0) -> None:
        for _ in range(seconds):
            self.now += 1.0
            arrived = [each for each in self.coming if each[0] <= self.now]
            self.coming = [each for each in self.coming if each[0] > self.now]
            for _, name, layer in arrived:
                self.held[name].add(layer)
            self.past.append({name: self.told(name) for name in self.held})
            for name in self.random.sample(sorted(self.held), len(self.held) // 2):
                self._decide(name, self.past[max(0, len(self.past) - 1 - lag())], fetch_s)
            self.worst.append(min(self.counts()))

    def _decide(self, name: str, seen: dict[str, Holding], fetch_s: float) -> None:
        mine = self.told(name)
        coming = {layer for _, owner, layer in self.coming if owner == name}
        mine = holding(name, set(mine.layers | coming), mine.room_bytes // SIZE - len(coming), self.leaving[name])
        others = [each for other, each in seen.items() if other != name]
        move = self.coverage[name].step(self.now, mine, others)
        self.held[name] -= move.drop | move.leaving
        self.leaving[name] = set(move.leaving)
        self.coming += [(self.now + fetch_s, name, layer) for layer in move.take]
        self.num_moves += len(move.take)
        assert len(self.held[name]) + len(coming) + len(move.take) <= self.memory[name]


def crowd_of_100(seed: int, room: int) -> Crowd:
    """32 layers; each node lends memory for 2 to 4 layers, and has room for `room` more."""
    crowd = Crowd(32, seed)
    for number in range(100):
        crowd.join(f"node {number}", crowd.random.randint(2, 4))
    for name in crowd.memory:
        crowd.memory[name] += room
    return crowd


@pytest.mark.parametrize("room", [1, 0], ids=["with room", "full"])
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_nodes_lose_a_layer_s_holders_and_have_it_twice_within_a_minute(seed: int, room: int) -> None:
    crowd = crowd_of_100(seed, room)
    crowd.run(30, lag=lambda: crowd.random.randint(0, 3))
    assert crowd.num_moves == 0, "nothing is short, nothing moves"
    crowd.kill([name for name, held in crowd.held.items() if 5 in held][1:])
    short = sum(2 - count for count in crowd.counts() if count < 2)
    assert min(crowd.counts()) == 1
    crowd.run(60, lag=lambda: crowd.random.randint(0, 3))
    assert min(crowd.counts()) >= 2
    assert crowd.num_moves <= 3 * short, "no stampede"
    settled = crowd.num_moves
    crowd.run(120, lag=lambda: crowd.random.randint(0, 3))
    assert crowd.num_moves == settled and min(crowd.counts()) >= 2, "it stays so"


@pytest.mark.parametrize("seed", range(3))
def test_most_of_a_hundred_full_nodes_are_gone_at_once(seed: int) -> None:
    crowd = crowd_of_100(seed, 0)
    crowd.kill(crowd.random.sample(sorted(crowd.held), 60))
    lost = [layer for layer, count in enumerate(crowd.counts()) if count == 0]
    short = sum(2 - count for count in crowd.counts() if count == 1)
    crowd.run(60, lag=lambda: crowd.random.randint(0, 3))
    counts = [count for layer, count in enumerate(crowd.counts()) if layer not in lost]
    assert min(counts) >= 2 and all(crowd.counts()[layer] == 0 for layer in lost)
    assert crowd.num_moves <= 3 * max(short, 1)
