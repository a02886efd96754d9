"""What a session is to be: never weaker than asked, nobody in both roles, and it says what is missing."""

from __future__ import annotations

import pytest
from fakes import identity
from hypothesis import given
from hypothesis import strategies as st

from node.formation import FORMERS, LanePlan, Offer, PadMaker, form
from node.privacy import Privacy

PEERS = [identity(index).peer_id for index in range(8)]
places = st.lists(st.booleans(), max_size=8).map(
    lambda there: tuple(PEERS[index] if is_there else None for index, is_there in enumerate(there))
)


@pytest.mark.parametrize("asked", list(Privacy))
def test_without_peers_it_is_computed_here(asked: Privacy) -> None:
    plan = form(asked, Offer())
    assert plan.mode is Privacy.LOCAL and plan.lanes == ()
    assert bool(plan.notes) == (asked in FORMERS), "whoever asked for peers is told"


@given(st.sampled_from(list(Privacy)), places, st.integers(1, 5))
def test_never_weaker_and_never_both_roles(asked: Privacy, places: tuple, max_lanes: int) -> None:
    plan = form(asked, Offer(places, max_lanes=max_lanes))
    if asked is not Privacy.AUTO:
        assert plan.mode in (asked, Privacy.LOCAL)
    used = [peer_id for lane in plan.lanes for peer_id in lane.peers]
    assert len(set(used)) == len(used) and set(used) <= set(places) - {None}
    assert bool(plan.lanes) == (plan.mode is not Privacy.LOCAL)
    assert all((lane.pads is not None) == (plan.pad_maker is PadMaker.PEER) for lane in plan.lanes)
    if plan.mode is Privacy.SPLIT:
        assert len(plan.lanes) <= max_lanes


def test_lanes_are_the_places() -> None:
    a, b, c, d = PEERS[:4]
    plan = form(Privacy.SPLIT, Offer((a, b, None, c, d)))
    assert plan.lanes == (LanePlan(b, a),)
    assert plan.notes == ("1 of 5 places are empty: their lanes are not used",)
    assert form(Privacy.STRICT, Offer((a, None))).lanes == (LanePlan(a),)
