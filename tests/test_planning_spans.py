"""How layers are cut over devices, and what that costs by prediction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.measures.peers import PeerFigures
from node.model.unit import UnitRef
from node.planning.cost import Cost, remote_cost
from node.planning.figures import DeviceFigures, LaneFigures, Line
from node.planning.spans import SpanOffer, SpanPlan, choices, cut_spans, span_cost
from protocol.identity import PeerId

LAYERS = range(12)
HIDDEN, MACS = 100, 100 * 300 + 100 * 100
UNITS = [
    UnitRef(layer, kind, outputs, HIDDEN, bytes([layer, outputs % 251]) * 16)
    for layer in LAYERS
    for kind, outputs in (("qkv", 300), ("o", 100))
]
HERE = DeviceFigures(0.001, 0.002, Line(1e-4, 1e-5), Line(1e-9, 1e-11), 1e9, Line(1e-4, 1e-9))


def figures(speed: float, rtt_s: float = 0.001) -> PeerFigures:
    return PeerFigures(rtt_s, 0.0, speed, 4 * speed, 1e8, True)


def offer(name: str, speed: float, layers: range = LAYERS, rtt_s: float = 0.001) -> SpanOffer:
    return SpanOffer(PeerId(name), frozenset(layers), figures(speed, rtt_s))


def cost(offers: list[SpanOffer], cut: tuple, prompt: int = 10):  # type: ignore[no-untyped-def, type-arg]
    return span_cost(UNITS, HERE, cut, {one.peer_id: one.figures for one in offers}, prompt)


@given(st.lists(st.tuples(st.floats(1e6, 1e12), st.sets(st.integers(0, 11))), min_size=1, max_size=5))
def test_every_layer_that_somebody_holds_is_given_to_one_who_holds_it(devices: list[tuple[float, set[int]]]) -> None:
    offers = [
        SpanOffer(PeerId(f"p{index}"), frozenset(held), figures(speed)) for index, (speed, held) in enumerate(devices)
    ]
    cut = cut_spans(LAYERS, offers)
    given_to = [(layer, span.peer_id) for span in cut for layer in span.layers]
    assert [layer for layer, _ in given_to] == sorted({layer for held in (d[1] for d in devices) for layer in held})
    held_by = {one.peer_id: one.layers for one in offers}
    assert all(layer in held_by[peer_id] for layer, peer_id in given_to)


def test_layers_are_cut_in_proportion_to_speed() -> None:
    cut = cut_spans(LAYERS, [offer("fast", 3e9), offer("slow", 1e9)])
    assert [(span.peer_id, span.layers) for span in cut] == [("fast", range(9)), ("slow", range(9, 12))]
    assert cut_spans(LAYERS, []) == ()


def test_a_device_alone_and_the_fastest_together_are_compared() -> None:
    offers = [offer("slow", 1e9), offer("fast", 3e9), offer("far", 2e9, rtt_s=1.0)]
    cuts = choices(LAYERS, offers)
    assert {tuple(span.peer_id for span in cut) for cut in cuts} == {
        ("fast",),
        ("far",),
        ("slow",),
        ("fast", "far"),
        ("fast", "far", "slow"),
    }
    best = min(cuts, key=lambda cut: cost(offers, cut).total_s(100))
    assert [span.peer_id for span in best] == ["fast"], "the far one would slow every token"
    halves = [offer("one", 1e9, range(6)), offer("other", 1e9, range(6, 12)), offer("slow", 1e8, range(3))]
    assert all(sum(len(span.layers) for span in cut) == 12 for cut in choices(LAYERS, halves))


def test_what_is_lent_costs_what_it_costs_alone() -> None:
    offers = [offer("one", 1e9, range(8))]
    (span,) = cut_spans(LAYERS, offers)
    lane = LaneFigures(figures(1e9, 0.002), figures(1e9, 0.002))
    seen: list[list[int | None]] = []

    def rest(units: Sequence[UnitRef]) -> Cost:
        seen.append([ref.layer for ref in units])
        return remote_cost(units, HERE, [lane], 10)

    both = span_cost(UNITS, HERE, [span], {offers[0].peer_id: offers[0].figures}, 10, rest)
    assert sorted(set(seen[0])) == [8, 9, 10, 11]  # type: ignore[type-var]
    lent = remote_cost([ref for ref in UNITS if ref.layer in range(8, 12)], HERE, [lane], 10)
    own = cost([offer("one", 1e9)], cut_spans(range(8), offers))
    assert both.exchanges == 1 + lent.exchanges and both.bytes_up == 4 * HIDDEN + lent.bytes_up
    assert lent.token_s < both.token_s < lent.token_s + own.token_s


def test_a_token_pays_every_span_and_a_prompt_the_slowest() -> None:
    offers = [offer("one", 1e9), offer("other", 1e9)]
    alone, both = cut_spans(LAYERS, offers[:1]), cut_spans(LAYERS, offers)
    floats_s = 12 * HERE.layer_float_s.at(1)
    expected = 0.001 + 12 * MACS / 1e9 + floats_s + 8 * HIDDEN / 1e8 + 0.003
    assert cost(offers, alone).token_s == pytest.approx(expected)
    assert cost(offers, both).token_s == pytest.approx(expected + 0.0005 + 4 * HIDDEN / 1e8), "straight on"
    assert (cost(offers, both).exchanges, cost(offers, both).bytes_up) == (2, 4 * HIDDEN)
    apart = [SpanPlan(PeerId("one"), range(3)), SpanPlan(PeerId("other"), range(4, 12))]
    assert cost(offers, tuple(apart)).bytes_up == 2 * 4 * HIDDEN, "a layer between them is computed here"
    assert cost(offers, both, 4096).ttft_s < 0.6 * cost(offers, alone, 4096).ttft_s
