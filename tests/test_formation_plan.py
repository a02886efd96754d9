"""What a session is to be: never weaker than asked, nobody in both roles, and it says what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import identity

from node.privacy import Privacy
from node.session.formation import FORMERS, form
from node.session.plan import Candidates, LanePlan, PadMaker

PEERS = [identity(index).peer_id for index in range(8)]
places = st.lists(st.booleans(), max_size=8).map(
    lambda there: tuple(PEERS[index] if is_there else None for index, is_there in enumerate(there))
)


@pytest.mark.parametrize("asked", list(Privacy))
def test_without_peers_it_is_computed_here(asked: Privacy) -> None:
    plan = form(asked, Candidates())
    assert plan.mode is Privacy.LOCAL and plan.lanes == ()
    assert bool(plan.notes) == (asked in FORMERS), "whoever asked for peers is told"


@given(st.sampled_from(list(Privacy)), places, st.integers(1, 5))
@settings(deadline=None)
def test_never_weaker_and_never_both_roles(asked: Privacy, places: tuple, max_lanes: int) -> None:
    there = tuple(peer_id for peer_id in places if peer_id is not None)
    plan = form(asked, Candidates(places, there, max_lanes=max_lanes))
    if asked is not Privacy.AUTO:
        assert plan.mode in (asked, Privacy.LOCAL)
    used = [peer_id for lane in plan.lanes for peer_id in lane.peers]
    assert len(set(used)) == len(used) and set(used) <= set(places) - {None}
    assert bool(plan.lanes) == (plan.mode is not Privacy.LOCAL)
    assert all((lane.pads is not None) == (plan.pad_maker is PadMaker.PEER) for lane in plan.lanes)
    if plan.mode is Privacy.SPLIT:
        assert len(plan.lanes) <= max_lanes


def test_auto_in_an_open_swarm_shows_nothing_that_strict_does_not_show() -> None:
    """There everybody can be both guards of a lane."""
    a, b = PEERS[:2]
    opened = form(Privacy.AUTO, Candidates((a, b), is_open=True))
    assert (opened.mode, opened.pad_maker) == (Privacy.STRICT, PadMaker.OWN)
    assert form(Privacy.AUTO, Candidates((a, b))).mode is Privacy.SPLIT


@pytest.mark.parametrize("asked", [Privacy.SPLIT, Privacy.STRICT, Privacy.TRUSTED])
def test_a_mode_whose_peers_are_missing_takes_none_of_another(asked: Privacy) -> None:
    """There are guards for `split`, peers for `strict`, or a reader for `trusted`, but not what was asked for."""
    a, b = PEERS[:2]
    missing = {
        Privacy.SPLIT: Candidates((a, None), sharers=(a, b), readers=frozenset({b})),
        Privacy.STRICT: Candidates((a, b), sharers=(), readers=frozenset({b})),
        Privacy.TRUSTED: Candidates((a, b), sharers=(a, b), paired=frozenset({a, b})),
    }
    plan = form(asked, missing[asked])
    assert plan.mode is Privacy.LOCAL and not plan.lanes and not plan.spans
    assert plan.notes[0].startswith(f"{asked.value} needs ")


def test_lanes_are_the_places() -> None:
    a, b, c, d = PEERS[:4]
    plan = form(Privacy.SPLIT, Candidates((a, b, None, c, d)))
    assert plan.lanes == (LanePlan(b, a),)
    assert plan.notes == ("1 of 5 places are empty: their lanes are not used",)
    assert form(Privacy.STRICT, Candidates((a, None))).lanes == (LanePlan(a),)


def test_guards_that_are_away_are_not_called_missing_peers() -> None:
    a, b = PEERS[:2]
    candidates = Candidates((a, None, None, b), sharers=(a, b), named=False, notes=("away",))
    plan = form(Privacy.SPLIT, candidates)
    assert plan.mode is Privacy.LOCAL
    assert plan.notes == ("split needs both guards of one lane, 2 of 4 are there: computed here", "away")
    (alone,) = form(Privacy.SPLIT, Candidates((a, None), sharers=(a,), named=False)).notes
    assert alone == "split needs 2 peers of the swarm with this model, 1 found: computed here; strict works with one"


# --- devices of one owner


def test_a_paired_device_makes_the_pads_of_strict_and_gets_no_share() -> None:
    a, b, c = PEERS[:3]
    named = form(Privacy.STRICT, Candidates((a, b), paired=frozenset({a})))
    assert named.lanes == (LanePlan(b, a),) and named.pad_maker is PadMaker.PAIRED
    came_in = form(Privacy.STRICT, Candidates((a, b), paired=frozenset({a, c})))
    assert came_in.lanes == (LanePlan(a, c), LanePlan(b, c)), "one that nobody named leaves every place to shares"
    alone = form(Privacy.STRICT, Candidates((a,), paired=frozenset({a})))
    assert alone.lanes == (LanePlan(a),) and alone.pad_maker is PadMaker.OWN, "else nobody would get shares"
    absent = form(Privacy.STRICT, Candidates((a, b)))
    assert absent.pad_maker is PadMaker.OWN


@given(st.sampled_from(list(Privacy)), places, st.sets(st.sampled_from(PEERS)), st.sets(st.sampled_from(PEERS)))
@settings(deadline=None)
def test_rows_go_as_they_are_where_that_was_asked_for_and_allowed(
    asked: Privacy, places: tuple, paired: set, readers: set
) -> None:
    plan = form(asked, Candidates(places, paired=frozenset(paired), readers=frozenset(readers)))
    shares = {lane.share for lane in plan.lanes}
    makers = {lane.pads for lane in plan.lanes} - {None}
    assert not shares & makers
    if plan.mode is Privacy.TRUSTED:
        assert asked is Privacy.TRUSTED and shares == readers and plan.pad_maker is PadMaker.NOBODY
    else:
        assert not plan.lanes or plan.pad_maker is not PadMaker.NOBODY
    if plan.pad_maker is PadMaker.PAIRED:
        assert len(makers) == 1 and makers <= paired and plan.mode is Privacy.STRICT


def test_trusted_without_a_reader_is_computed_here_and_says_so() -> None:
    a, b = PEERS[:2]
    for candidates in (Candidates((a, b)), Candidates((a, b), paired=frozenset({a}))):
        plan = form(Privacy.TRUSTED, candidates)
        assert plan.mode is Privacy.LOCAL and not plan.lanes
        assert "--may-read-prompts" in plan.notes[0]
