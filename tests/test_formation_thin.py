"""What a device without weights does with peers that hold parts: pairs turned, stand-ins, pads by paired devices."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import identity

from node.planning.placement import ALL_LENT
from node.privacy import Privacy
from node.session.formation import form
from node.session.plan import Candidates, LanePlan, PadMaker

A, B, C, D = PEERS = [identity(index).peer_id for index in range(4)]
UNITS = [bytes([number]) * 32 for number in range(6)]


def plan_of(privacy: Privacy, candidates: Candidates):  # type: ignore[no-untyped-def]
    return form(privacy, candidates, placements=[ALL_LENT])


def test_each_guard_stands_in_in_the_next_lane() -> None:
    plan = plan_of(Privacy.SPLIT, Candidates((A, B, C, D), thin=True))
    assert plan.lanes == (
        LanePlan(B, A),
        LanePlan(D, C),
        LanePlan(D, A, stands_in=True),
        LanePlan(B, C, stands_in=True),
    )
    assert not any(lane.stands_in for lane in plan_of(Privacy.SPLIT, Candidates((A, B, C, D))).lanes), "whole: none"


def test_a_guard_whose_partner_is_away_stands_in() -> None:
    plan = plan_of(Privacy.SPLIT, Candidates((A, None, C, D), thin=True, named=False))
    assert plan.lanes == (LanePlan(D, C), LanePlan(D, A, stands_in=True))


@given(st.lists(st.frozensets(st.sampled_from(UNITS)), min_size=4, max_size=4), st.integers(1, 2))
@settings(deadline=None)
def test_pairs_are_turned_to_cover_most_and_nobody_has_both_roles(
    held: list[frozenset[bytes]], max_lanes: int
) -> None:
    units = dict(zip(PEERS, held, strict=True))
    plan = plan_of(Privacy.SPLIT, Candidates((A, B, C, D), thin=True, units=units, max_lanes=max_lanes))
    pads, shares = {lane.pads for lane in plan.lanes}, {lane.share for lane in plan.lanes}
    assert not pads & shares
    own = [lane for lane in plan.lanes if not lane.stands_in]
    assert {frozenset((lane.pads, lane.share)) for lane in own} <= {frozenset((A, B)), frozenset((C, D))}

    def covered(sides: tuple[tuple[str, ...], tuple[str, ...]]) -> int:
        return len(frozenset().union(*(units[pad] & units[share] for pad in sides[0] for share in sides[1])))

    chosen = covered((tuple(pads), tuple(shares)))
    if max_lanes == 2:
        assert chosen == max(covered(((A, C), (B, D))), covered(((A, D), (B, C))))


def test_two_that_complement_each_other_are_put_on_both_sides() -> None:
    first, second = frozenset(UNITS[:3]), frozenset(UNITS[3:])
    units = {A: first, B: second, C: second, D: first}
    plan = plan_of(Privacy.SPLIT, Candidates((A, B, C, D), thin=True, units=units))
    common = [units[lane.pads or lane.share] & units[lane.share] for lane in plan.lanes]
    assert frozenset().union(*common) == set(UNITS), "by the stand-ins: the partners themselves share nothing"


@pytest.mark.parametrize("paired", [(A,), (A, B)])
def test_in_strict_paired_devices_alone_make_pads(paired: tuple) -> None:
    candidates = Candidates((), PEERS, thin=True, paired=frozenset(paired))  # type: ignore[arg-type]
    plan = plan_of(Privacy.STRICT, candidates)
    assert plan.pad_maker is PadMaker.PAIRED
    assert {lane.pads for lane in plan.lanes} == set(paired)
    assert {lane.share for lane in plan.lanes} == set(PEERS) - set(paired)


@pytest.mark.parametrize("asked", [Privacy.AUTO, Privacy.SPLIT, Privacy.STRICT, Privacy.TRUSTED])
def test_without_helpers_it_waits_in_its_mode_and_never_computes_here(asked: Privacy) -> None:
    plan = plan_of(asked, Candidates(thin=True))
    assert plan.mode is not Privacy.LOCAL and plan.lanes == () and plan.placement == ALL_LENT
    assert plan.mode is (Privacy.SPLIT if asked is Privacy.AUTO else asked)
    makers = {Privacy.SPLIT: PadMaker.PEER, Privacy.STRICT: PadMaker.PAIRED, Privacy.TRUSTED: PadMaker.NOBODY}
    assert plan.pad_maker is makers[plan.mode], "whoever comes later is used in this mode"
    assert any("waiting for them" in note for note in plan.notes)
