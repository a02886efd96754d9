"""When `auto` goes through own devices, and when it must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from node.gateway.http.keys import Key
from node.measures.peers import PeerFigures
from node.planning.cost import Cost
from node.planning.placement import LAYERS_LENT
from node.planning.spans import SpanOffer
from node.privacy import Privacy
from node.session.formation import form
from node.session.plan import Candidates, PadMaker, SessionPlan
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId
from protocol.link.hello import Hello

DESK, BOX, HALL = PeerId("desk"), PeerId("box"), PeerId("hall")
FIGURES = PeerFigures(0.001, 0.0, 1e10, 4e10, 1e8, True)
OWN = Candidates(
    sharers=(),
    readers=frozenset({DESK}),
    readers_for_auto=frozenset({DESK}),
    paired=frozenset({DESK}),
    offers=(SpanOffer(DESK, frozenset(range(4)), FIGURES),),
    num_layers=4,
)


def costs(here_s: float, spans_s: float, lanes_s: float = 9.0) -> Callable[[SessionPlan], Cost]:
    def predict(plan: SessionPlan) -> Cost:
        return Cost(0.0, spans_s if plan.spans else lanes_s if plan.lanes else here_s)

    return predict


def test_auto_takes_what_is_fastest() -> None:
    through = form(Privacy.AUTO, OWN, costs(0.3, 0.1))
    assert (through.mode, [span.peer_id for span in through.spans]) == (Privacy.TRUSTED, [DESK])
    assert (through.pad_maker, through.lanes) == (PadMaker.NOBODY, ())
    stays = form(Privacy.AUTO, OWN, costs(0.1, 0.3))
    assert (stays.mode, stays.spans) == (Privacy.LOCAL, ()) and "--privacy trusted uses them" in stays.notes[-1]
    lanes = form(Privacy.AUTO, replace(OWN, places=(BOX, DESK), sharers=(BOX, DESK)), costs(0.3, 0.2, 0.1))
    assert lanes.mode is Privacy.SPLIT and not lanes.spans


def test_a_consent_of_old_holds_only_where_the_mode_is_named() -> None:
    before = replace(OWN, readers_for_auto=frozenset())
    assert form(Privacy.AUTO, before, costs(0.3, 0.1)).mode is Privacy.LOCAL
    assert form(Privacy.TRUSTED, before, costs(0.3, 0.1)).spans


@pytest.mark.parametrize("asked", [Privacy.LOCAL, Privacy.SPLIT, Privacy.STRICT])
def test_no_other_mode_shows_plain_rows(asked: Privacy) -> None:
    plan = form(asked, OWN, costs(9.0, 0.001))
    assert plan.mode is not Privacy.TRUSTED and not plan.spans


def test_a_thin_client_does_not_wait_for_guards_if_its_own_devices_are_there() -> None:
    thin = replace(OWN, thin=True, lacking=frozenset(range(4)), sharers=(DESK,))
    plan = form(Privacy.AUTO, thin, costs(0.01, 0.3), placements=(LAYERS_LENT,))
    assert plan.mode is Privacy.TRUSTED and plan.spans and not plan.lanes
    head_too = replace(thin, lacking=frozenset({None, *range(4)}))
    plan = form(Privacy.TRUSTED, head_too, costs(0.01, 0.3))
    assert plan.spans and [lane.share for lane in plan.lanes] == [DESK], "the head is lent unit by unit"


THIN = replace(
    OWN,
    thin=True,
    lacking=frozenset(range(6)),
    num_layers=6,
    places=(BOX, HALL),
    sharers=(BOX, HALL),
)
"""A client without weights, whose own device holds four of six layers; others hold all."""


def mixed_costs(mixed_s: float, lanes_s: float) -> Callable[[SessionPlan], Cost]:
    def predict(plan: SessionPlan) -> Cost:
        alone = plan.spans and not plan.lanes_mode  # cheap, but nobody computes the other layers
        return Cost(0.0, 0.001 if alone else mixed_s if plan.spans else lanes_s)

    return predict


@pytest.mark.parametrize(("is_open", "outside"), [(False, Privacy.SPLIT), (True, Privacy.STRICT)])
def test_what_own_devices_do_not_hold_goes_to_others_in_the_mode_that_auto_would_take(
    is_open: bool, outside: Privacy
) -> None:
    thin = replace(THIN, is_open=is_open)
    plan = form(Privacy.AUTO, thin, mixed_costs(0.1, 0.3))
    alone = form(outside, thin)
    assert (plan.mode, plan.lanes_mode, plan.outside) == (Privacy.TRUSTED, outside, outside)
    assert (plan.pad_maker, plan.lanes, plan.placement) == (alone.pad_maker, alone.lanes, LAYERS_LENT)
    assert [(span.peer_id, span.layers) for span in plan.spans] == [(DESK, range(4))] and plan.cost is not None
    slower = form(Privacy.AUTO, thin, mixed_costs(0.3, 0.1))
    assert (slower.mode, slower.outside, slower.spans) == (outside, outside, ())


def test_without_others_own_devices_do_what_they_can() -> None:
    plan = form(Privacy.AUTO, replace(THIN, places=(), sharers=(DESK,)), mixed_costs(0.1, 0.3))
    assert (plan.mode, plan.lanes_mode, plan.pad_maker) == (Privacy.TRUSTED, None, PadMaker.NOBODY)


def test_auto_lets_nobody_read_whose_consent_is_not_for_it() -> None:
    """Not even unit by unit, beside a device whose consent is."""
    with_old = replace(THIN, places=(), sharers=(DESK, BOX), readers=frozenset({DESK, BOX}))
    plan = form(Privacy.AUTO, with_old, mixed_costs(0.1, 0.3))
    assert plan.spans and {lane.share for lane in plan.lanes} == {DESK}
    assert {lane.share for lane in form(Privacy.TRUSTED, with_old).lanes} == {DESK, BOX}
    assert with_old.by_auto.readers == {DESK}


def test_the_one_connection_of_an_attached_device_has_one_use() -> None:
    """It is a guard of a lane already, or makes its pads."""
    places = replace(THIN, places=(BOX, DESK), sharers=(BOX, DESK))
    dials = form(Privacy.AUTO, replace(places, holders={DESK: peer(4711)}), mixed_costs(0.1, 0.3))
    assert dials.spans and dials.lanes_mode is Privacy.SPLIT
    attached = form(Privacy.AUTO, replace(places, holders={DESK: peer(0)}), mixed_costs(0.1, 0.3))
    assert (attached.mode, attached.spans) == (Privacy.SPLIT, ())


def peer(data_port: int) -> ConnectedPeer:
    hello = Hello(bytes(32), (1,), "test", (), data_port, (), 0, (1,), bytes(16))
    return ConnectedPeer(DESK, hello, "127.0.0.1", dialled=False)


def test_who_names_his_own_devices_means_no_others() -> None:
    plan = form(Privacy.TRUSTED, THIN, mixed_costs(0.1, 0.3))
    assert plan.lanes_mode is None and {lane.share for lane in plan.lanes} == {DESK}


def test_what_own_devices_hold_whole_needs_nobody_else() -> None:
    plan = form(Privacy.AUTO, replace(THIN, num_layers=4, lacking=frozenset(range(4))), mixed_costs(0.1, 0.3))
    assert plan.spans and not plan.lanes and plan.lanes_mode is None


def test_a_key_for_split_never_gets_plain_rows() -> None:
    assert Key("laptop", "", Privacy.SPLIT).privacy(Privacy.AUTO) is Privacy.SPLIT
    assert Key("laptop", "").privacy(Privacy.AUTO) is Privacy.AUTO
