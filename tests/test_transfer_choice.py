"""Which layers a node takes: coverage first, then speed, then neighbours."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from node.serving.hosting import ranges_of, ranges_text
from node.transfer.choice import LayerView, choose_layers, start_of
from protocol.membership.records import MAX_LAYER_RANGES

relaxed = settings(deadline=None, max_examples=200)


def views(operators: list[int], speeds: list[float] | None = None, num_bytes: int = 10) -> list[LayerView]:
    return [LayerView(i, num_bytes, count, speeds[i] if speeds else 1.0 * count) for i, count in enumerate(operators)]


def joined(num_layers: int, capacities: list[int]) -> list[int]:
    """Holders of every layer after nodes of these capacities, each of its own operator, came one after the other."""
    held = [0] * num_layers
    for number, capacity in enumerate(capacities):
        for layer in choose_layers(views(held), 10 * capacity, start_of(f"peer {number}", num_layers)):
            held[layer] += 1
    return held


@given(st.integers(1, 12), st.lists(st.integers(1, 12), min_size=1, max_size=20))
@relaxed
def test_coverage_is_as_even_as_it_can_be_until_all_is_held_twice(num_layers: int, capacities: list[int]) -> None:
    held = joined(num_layers, capacities)
    room = sum(min(capacity, num_layers) for capacity in capacities)
    assert sum(held) == room, "memory is used"
    if room >= 2 * num_layers:
        assert min(held) >= 2
    else:
        assert max(held) - min(held) <= 1


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100), st.integers(1, 50)), max_size=30),
    st.integers(0, 400),
    st.integers(0, 29),
)
@relaxed
def test_no_more_than_the_memory_holds_and_nothing_twice(
    layers: list[tuple[int, float, int]], memory: int, start: int
) -> None:
    seen = [LayerView(i, size, count, speed) for i, (count, speed, size) in enumerate(layers)]
    chosen = choose_layers(seen, memory, start)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(range(len(layers)))
    assert sum(seen[layer].num_bytes for layer in chosen) <= memory
    assert chosen == choose_layers(seen, memory, start)
    covered = [min(seen[layer].num_operators, 2) for layer in chosen]
    assert covered == sorted(covered), "the most urgent first"


def test_a_layer_that_nobody_holds_comes_before_a_slow_one_and_that_before_a_fast_one() -> None:
    assert choose_layers(views([2, 2, 0, 1, 2], [5.0, 9.0, 0.0, 3.0, 1.0]), 40) == [2, 3, 4, 0]


def test_what_is_there_already_is_kept() -> None:
    assert choose_layers(views([0, 0, 2, 2]), 20, kept={3}) == [3, 0]


def test_equals_are_taken_as_neighbours_from_a_place_of_ones_own() -> None:
    assert choose_layers(views([1] * 6), 30, start=4) == [4, 5, 0]
    starts = {start_of(f"12D3KooW{number}", 32) for number in range(64)}
    assert len(starts) > 20


def test_no_more_runs_than_a_record_can_name() -> None:
    every_other = [number % 2 * 2 for number in range(80)]
    chosen = choose_layers(views(every_other), 10 * 40)
    assert len(ranges_of(set(chosen))) == MAX_LAYER_RANGES


def test_ranges_for_people() -> None:
    assert ranges_text({0, 1, 2, 5}) == "0-2, 5" and ranges_text(set()) == ""
