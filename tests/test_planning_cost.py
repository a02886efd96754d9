"""What a request is expected to cost, and what `auto` makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import KERNELS, identity, make_unit
from msgspec.structs import replace

from node.measures.peers import Measures, PeerFigures
from node.model.unit import UnitRef
from node.planning.cost import Cost, local_cost, remote_cost
from node.planning.figures import DeviceFigures, LaneFigures, Line
from node.planning.placement import LAYERS_LENT
from node.planning.planner import CORRECTION_LIMIT, Planner, _corrected
from node.privacy import Privacy
from node.session.formation import form
from node.session.plan import Candidates, SessionPlan
from node.store.library import Library

PEERS = [identity(index).peer_id for index in range(4)]
UNITS = [make_unit(64, 32, layer=layer, kind=kind).ref for layer in range(3) for kind in ("qkv", "o")]
MACS = 6 * 64 * 32
DEVICE = DeviceFigures(
    ends_s=0.0008, head_s=0.0002, layer_float_s=Line(1e-4, 1e-5), linear_s=Line(1e-9, 1e-10), field_macs_per_s=1e9,
    exchange_s=Line(1e-4, 1e-8),
)  # fmt: skip


def peer(rtt_s: float = 0.01, speed: float = 1e9, bytes_per_s: float = 1e8) -> PeerFigures:
    return PeerFigures(rtt_s, 0.0, speed, speed, bytes_per_s, True)


def test_a_token_here_is_the_sum_of_its_parts() -> None:
    cost = local_cost(UNITS, DEVICE, 1)
    assert cost.token_s == pytest.approx(0.001 + 3 * 1.1e-4 + MACS * 1.1e-9)
    assert cost.ttft_s == cost.token_s and cost.exchanges == cost.bytes_up == 0


def test_a_token_away_is_one_exchange_a_unit() -> None:
    lane = LaneFigures(peer(), peer())
    cost = remote_cost(UNITS, DEVICE, [lane], 1)
    exchange_s = 0.01 + 64 * 32 / 1e9 + 4 * 96 / 1e8
    own_s = 1e-4 + 96e-8 + (1e-4 + 8 * 96e-8) / 8
    assert cost.token_s == pytest.approx(0.001 + 3 * 1.1e-4 + 6 * (exchange_s + own_s))
    assert (cost.exchanges, cost.bytes_up, cost.bytes_down) == (6, 6 * 4 * 32, 6 * 8 * 64)
    strict = remote_cost(UNITS, DEVICE, [LaneFigures(peer(), None)], 1)
    assert strict.bytes_down == cost.bytes_down / 2


def test_pads_are_made_while_a_peer_computes() -> None:
    lane = LaneFigures(peer(speed=1e6), None)
    with_pads, without = (remote_cost(UNITS, DEVICE, [lane], 40, pads_made) for pads_made in (0, 100))
    assert with_pads.ttft_s == pytest.approx(without.ttft_s), "they are quicker made than the shares computed"
    slow = replace(DEVICE, field_macs_per_s=1e5)
    pads_s = 64 * MACS / 1e5
    assert remote_cost(UNITS, slow, [lane], 40).ttft_s > pads_s > without.ttft_s


@pytest.mark.parametrize(("speed", "own_s"), [(1e6, 1e-8), (1e9, 1e-5)])
def test_a_long_prompt_takes_as_long_as_the_busier_side(speed: float, own_s: float) -> None:
    device, lane = replace(DEVICE, exchange_s=Line(0.0, own_s)), LaneFigures(peer(1e-6, speed), None)
    cost = remote_cost(UNITS, device, [lane], 512, pads_made=1000)
    peers_s = 512 * MACS / speed + 512 * 6 * 96 * 4 / 1e8
    here_s = 0.001 + 3 * (1e-4 + 512 * 1e-5) + 512 * 6 * 96 * own_s
    assert cost.ttft_s == pytest.approx(max(peers_s, here_s), rel=0.02)
    alone = remote_cost(UNITS, replace(device, most_waves=1), [lane], 512, pads_made=1000)
    assert alone.ttft_s == pytest.approx(peers_s + here_s, rel=0.02)


def test_waves_overlap_at_one_unit_and_not_across_units() -> None:
    """Where one unit keeps the way busy and the other this device, neither makes up for the other."""
    light, heavy = (make_unit(*shape, layer=0, kind="o").ref for shape in ((512, 64), (256, 256)))
    zero = Line(0.0, 0.0)
    device = replace(DEVICE, ends_s=0.0, head_s=0.0, layer_float_s=zero, exchange_s=Line(0.0, 1e-6))
    lane = LaneFigures(peer(1e-9, 1e8, 1e12), None)

    def prompt_s(*units: UnitRef) -> float:
        return remote_cost(units, device, [lane], 512, pads_made=1000).ttft_s

    assert prompt_s(light) == pytest.approx(512 * (512 + 64) * 1e-6, rel=1e-3), "this device is busier"
    assert prompt_s(heavy) == pytest.approx(512 * 256 * 256 / 1e8, rel=1e-3), "the peer is busier"
    assert prompt_s(light, heavy) == pytest.approx(prompt_s(light) + prompt_s(heavy), rel=1e-3)


def test_no_wave_is_quicker_than_its_own_round_trips() -> None:
    cost = remote_cost(UNITS, DEVICE, [LaneFigures(peer(rtt_s=1.0), None)], 512, pads_made=1000)
    assert cost.ttft_s > 6.0


def test_a_guard_that_cannot_keep_up_is_what_counts() -> None:
    cost = remote_cost(UNITS, DEVICE, [LaneFigures(peer(0.0001), peer(speed=1e4))], 1)
    assert cost.token_s > MACS / 1e4


def test_what_no_lane_covers_is_computed_here() -> None:
    some = frozenset(ref.sha256 for ref in UNITS[:2])
    cost = remote_cost(UNITS, DEVICE, [LaneFigures(peer(), None, some)], 8)
    assert cost.exchanges == sum(ref.sha256 in some for ref in UNITS)
    none = remote_cost(UNITS, DEVICE, [LaneFigures(peer(), None, frozenset())], 8)
    assert none.token_s == pytest.approx(local_cost(UNITS, DEVICE, 8).token_s)
    assert none.ttft_s == pytest.approx(local_cost(UNITS, DEVICE, 8).ttft_s)


@given(st.integers(1, 2000), st.floats(1e-4, 1), st.floats(1e6, 1e12), st.integers(1, 4))
@settings(deadline=None)
def test_nothing_better_costs_more(prompt: int, rtt_s: float, speed: float, lanes: int) -> None:
    def cost(rtt_s: float, speed: float) -> Cost:
        figures = LaneFigures(peer(rtt_s, speed), peer(rtt_s, speed))
        return remote_cost(UNITS, DEVICE, [figures] * lanes, prompt)

    base, nearer, faster = cost(rtt_s, speed), cost(rtt_s / 2, speed), cost(rtt_s, 2 * speed)
    for better in (nearer, faster):
        assert better.token_s <= base.token_s and better.ttft_s <= base.ttft_s * (1 + 1e-12)
    assert base.ttft_s > 0 and 0 < base.token_s < float("inf")


def predict(here_s: float, away_s: float):  # type: ignore[no-untyped-def]
    def cost(plan: SessionPlan) -> Cost:
        return Cost(here_s, here_s) if plan.mode is Privacy.LOCAL else Cost(away_s, away_s)

    return cost


def test_auto_goes_where_it_is_faster_and_says_why_not() -> None:
    candidates = Candidates(tuple(PEERS), tuple(PEERS))
    stays = form(Privacy.AUTO, candidates, predict(0.1, 0.5), new_tokens=10)
    assert stays.mode is Privacy.LOCAL and stays.lanes == ()
    (note,) = stays.notes
    assert "10 tokens take about 1 s on this device alone and about 5 s in split over 2 lanes" in note
    goes = form(Privacy.AUTO, candidates, predict(0.5, 0.1), new_tokens=10)
    assert goes.mode is Privacy.SPLIT and len(goes.lanes) == 2 and goes.notes == ()
    assert (goes.cost, goes.cost_here) == (Cost(0.1, 0.1), Cost(0.5, 0.5))


@pytest.mark.parametrize("asked", [Privacy.SPLIT, Privacy.STRICT])
def test_a_mode_asked_for_by_name_is_not_weighed(asked: Privacy) -> None:
    assert form(asked, Candidates(tuple(PEERS), tuple(PEERS)), predict(0.1, 100)).mode is asked


def test_who_cannot_compute_here_offloads_and_open_swarms_are_strict() -> None:
    candidates = Candidates(tuple(PEERS), tuple(PEERS), thin=True)
    plan = form(Privacy.AUTO, candidates, predict(0.0001, 100))
    assert plan.mode is Privacy.SPLIT and plan.cost_here is None
    open_swarm = Candidates(tuple(PEERS), tuple(PEERS), is_open=True)
    assert form(Privacy.AUTO, open_swarm, predict(100, 1)).mode is Privacy.STRICT


@pytest.mark.parametrize("is_measured", [True, False])
def test_what_was_only_assumed_of_peers_teaches_nothing(is_measured: bool, tmp_path: Path) -> None:
    planner, story = Planner(KERNELS, Measures()), Library(tmp_path).resolve("story")
    figures = replace(peer(), measured=is_measured)
    lanes = [LaneFigures(figures, figures)]
    said = planner.predict(story, Privacy.SPLIT, lanes, 10)
    assert said.is_measured is is_measured
    planner.learn(story, Privacy.SPLIT, LAYERS_LENT, said, 3 * said.ttft_s, 3 * said.token_s)
    again = planner.predict(story, Privacy.SPLIT, lanes, 10)
    assert (again.ttft_s > said.ttft_s) is (again.token_s > said.token_s) is is_measured


@given(st.floats(0.01, 10), st.floats(1e-3, 10))
@settings(deadline=None)
def test_corrections_converge_on_what_happens(truth: float, said_s: float) -> None:
    factor = 1.0
    for _ in range(60):
        factor = _corrected(factor, said_s * factor, said_s * truth)
    limited = min(max(truth, 1 / CORRECTION_LIMIT), CORRECTION_LIMIT)
    assert factor == pytest.approx(limited, rel=0.01)
    assert _corrected(factor, said_s, 0.0) == factor
