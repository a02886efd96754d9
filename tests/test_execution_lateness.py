"""Peers that are silent, late, lost or full of errors: what they hold is done elsewhere, and they are tried again."""

import time

import pytest
from checked_swarm import FOREVER, UNITS, check, check_counts, shares_of, swarm_of
from made_parts import make_rows
from scripted_peer import (
    Script,
    ScriptedPeer,
    error,
    honest,
    lost,
    lost_and_back,
    newest_first,
)
from scripted_session import Swarm

from node.execution import execute_distributed
from node.execution.config import MAX_ATTEMPTS, NOT_AGAIN
from node.execution.peer import LATE_LIMIT, REST_FIRST_S, PeerStatus
from protocol.linear.messages import Linear
from protocol.message import ErrorCode

# --- silence, lateness, loss


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_silence_is_waited_for_as_long_as_configured(mode: str) -> None:
    with swarm_of(mode, [["silent", "silent"]]) as swarm:
        started = time.monotonic()
        for _ in range(6):
            swarm.step(1)
        assert time.monotonic() - started < 10
        check(swarm)
        assert swarm.manager.counts.hedged == LATE_LIMIT
        assert all(peer.session.status is PeerStatus.SUSPENDED for peer in swarm.peers)
        assert sum(1 for wait in swarm.manager.waits if wait > 0) <= 3 * LATE_LIMIT


def test_a_suspended_peer_gets_work_again_when_it_answers() -> None:
    with swarm_of("strict", [["silent"]]) as swarm:
        (peer,) = swarm.peers
        owed: list[tuple[int, Linear]] = []
        peer.script = lambda peer, message_id, request: owed.append((message_id, request))
        swarm.step(1)
        swarm.step(1)
        assert peer.session.status is PeerStatus.SUSPENDED
        asked = peer.requests
        swarm.step(1)
        assert peer.requests == asked
        peer.script = honest
        honest(peer, *owed[0])
        swarm.step(1)
        assert peer.session.status is PeerStatus.ACTIVE
        assert peer.requests > asked
        check(swarm)


def test_a_suspended_peer_gets_work_again_when_it_reconnects() -> None:
    with swarm_of("strict", [["silent"]]) as swarm:
        (peer,) = swarm.peers
        swarm.step(1)
        swarm.step(1)
        assert peer.session.status is PeerStatus.SUSPENDED
        peer.channel.lose()
        swarm.step(1)
        assert not peer.session.usable
        assert peer.session.in_flight == {}
        peer.script = honest
        peer.channel.restore()
        swarm.step(1)
        assert peer.requests > 2
        check(swarm)


def test_lateness_counts_against_who_holds_the_share() -> None:
    with swarm_of("strict", [["lie: one more"], ["silent"]]) as swarm:
        liar_, quiet = swarm.peers
        swarm.step(9)
        check_counts(swarm)
        assert liar_.session.late_in_a_row == 0
        assert quiet.session.late_in_a_row > 0


def test_products_of_pads_may_come_late() -> None:
    """The share is verified and waits; the pad's answer, two requests behind, still merges it."""
    with Swarm(UNITS, "split", FOREVER) as swarm:
        swarm.add_lane(newest_first, honest)
        swarm.step(1)  # both units' pads are asked for ahead, so the guard has two requests to turn around
        check(swarm)
        assert swarm.manager.counts.verified == len(UNITS)


def test_products_that_never_come_are_not_waited_for_again_and_again() -> None:
    with swarm_of("split", [["silent", "honest"]]) as swarm:
        for _ in range(8):
            swarm.step(1)
        check(swarm)
        pad, share = swarm.peers
        assert pad.session.status is PeerStatus.SUSPENDED
        assert share.session.status is PeerStatus.ACTIVE
        assert swarm.manager.counts.hedged == LATE_LIMIT


@pytest.mark.parametrize("script", [lost, lost_and_back])
def test_a_lost_connection_is_news_at_once(script: Script) -> None:
    with Swarm(UNITS, "strict", FOREVER) as swarm:
        swarm.add_lane(script)
        swarm.add_lane(honest)
        for num_rows in (9, 1, 9, 1, 9):
            swarm.step(num_rows)
        check(swarm)
        assert swarm.manager.counts.hedged == 0
        assert swarm.manager.counts.local == 0


def test_in_split_mode_a_lost_connection_loses_no_row() -> None:
    for script in (lost, lost_and_back):
        for lane in ((script, honest), (honest, script)):
            with Swarm(UNITS, "split", FOREVER) as swarm:
                swarm.add_lane(*lane)
                for num_rows in (9, 1, 9, 1, 9):
                    swarm.step(num_rows)
                check(swarm)
                assert swarm.manager.counts.hedged == 0


@pytest.mark.parametrize("mode", ["split", "strict"])
@pytest.mark.parametrize("code", sorted(set(ErrorCode) - set(NOT_AGAIN)))
def test_an_error_is_answered_with_the_same_share_once(code: ErrorCode, mode: str) -> None:
    with Swarm(UNITS, mode, FOREVER) as swarm:
        swarm.add_lane(*[honest, error(code, times=1)][-1 if mode == "strict" else 0 :])
        swarm.step(1)
        peer = swarm.peers[-1]
        first, second, *_rest = shares_of(peer)
        assert first == second
        assert swarm.manager.counts.local == 0
        check(swarm)


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_errors_without_end_are_not_insisted_upon(mode: str) -> None:
    with Swarm(UNITS, mode, FOREVER) as swarm:
        swarm.add_lane(*[honest, error(ErrorCode.INTERNAL)][-1 if mode == "strict" else 0 :])
        swarm.step(1)
        assert swarm.peers[-1].requests == MAX_ATTEMPTS * len(UNITS)
        assert swarm.manager.counts.verified == 0
        check(swarm)


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_a_peer_with_too_much_to_do_is_left_alone_for_a_while(mode: str) -> None:
    """One request, not two; then nothing until its rest is over, longer each time in a row."""
    with swarm_of(mode, [["honest", "exhausted"][-1 if mode == "strict" else 0 :]], FOREVER) as swarm:
        peer = swarm.peers[-1]
        for rests in range(1, 6):
            peer.session.rests_until = 0.0
            swarm.step(1)
            assert peer.requests == rests and not peer.session.usable
            peer.session.rests_until = time.monotonic() + 1000
            swarm.step(1)
            assert peer.requests == rests
        assert peer.session.rest_s == REST_FIRST_S * 2**4
        peer.script = honest
        peer.session.rests_until = 0.0
        swarm.step(1)
        assert peer.session.rest_s == 0 and swarm.manager.counts.verified == len(UNITS)
        check(swarm)


def test_a_unit_that_a_peer_lacks_goes_elsewhere_from_then_on() -> None:
    def lacks_first(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        lacking = request.binding.unit == UNITS[0].ref.sha256
        (error(ErrorCode.NOT_FOUND) if lacking else honest)(peer, message_id, request)

    with Swarm(UNITS, "strict", FOREVER) as swarm:
        swarm.add_lane(lacks_first)
        for _ in range(3):
            swarm.step(1)
        lacking = [request for request in swarm.peers[0].linears if request.binding.unit == UNITS[0].ref.sha256]
        assert len(lacking) == 1 and len(swarm.peers[0].linears) == 4
        swarm.add_lane(honest)
        local = swarm.manager.counts.local
        swarm.step(9)
        assert swarm.manager.counts.local == local
        check(swarm)


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_lanes_that_hold_parts_of_a_model_do_their_parts(mode: str) -> None:
    with swarm_of(mode, [["honest", "honest"]] * 2, FOREVER) as swarm:
        for lane, unit in zip(swarm.manager.lanes, UNITS, strict=True):
            lane.units = frozenset({unit.ref.sha256})
        for num_rows in (9, 1, 1):
            swarm.step(num_rows)
        assert swarm.manager.counts.local == 0
        for index, unit in enumerate(UNITS):
            peers = swarm.peers[2 * index : 2 * index + 2] if mode == "split" else [swarm.peers[index]]
            assert {request.binding.unit for peer in peers for request in peer.linears} == {unit.ref.sha256}
        check(swarm)


def test_a_peer_that_leaves_finishes_and_gets_no_new_rows() -> None:
    """The guard of the pads says goodbye in the middle of a pass; the pass ends in its lane, the next does not."""
    with swarm_of("split", [["honest", "honest"]] * 2, FOREVER) as swarm:
        swarm.step(1)
        used = next(lane for lane in swarm.manager.lanes if lane.share_peer.chunks)
        swarm.manager.begin_step(1, UNITS)
        for index, unit in enumerate(UNITS):
            rows = make_rows(1, unit.ref.num_inputs)
            execute_distributed(swarm.manager, unit, rows)
            if index == 0:
                lane = swarm.manager.lanes[swarm.manager.roster.spans_of(unit.ref)[0].lane]
                assert lane.guard is not None
                lane.guard.leaving = True
        asked = {id(peer): peer.requests for peer in swarm.peers}
        for _ in range(12):
            swarm.step(1)
        left = [peer for peer in swarm.peers if peer.session in (lane.guard, lane.share_peer)]
        assert all(peer.requests == asked[id(peer)] for peer in left) and used is not None
        assert swarm.manager.counts.local == 0
        check(swarm)


def test_an_error_about_a_pad_is_local_work_at_once() -> None:
    with swarm_of("split", [["exhausted", "honest"]], FOREVER) as swarm:
        swarm.step(9)
        swarm.step(1)
        check(swarm)
        assert swarm.manager.counts.hedged == 0
        assert swarm.manager.counts.verified == 0
