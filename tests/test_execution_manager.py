"""Whatever peers do, the numbers are those of this device, the counts are true, and no peer learns a thing."""

import numpy as np
import pytest
from checked_swarm import (
    AT_ONCE,
    FOREVER,
    UNITS,
    check,
    check_counts,
    check_privacy,
    check_retries,
    shares_of,
    swarm_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_parts import KERNELS
from scripted_peer import (
    FAULTS,
    LIES,
    SCRIPTS,
    ScriptedPeer,
    every_other,
    liar,
    one_behind,
    silent,
)
from scripted_session import IMPATIENT, Swarm

from node.errors import CorruptModelError
from node.execution.peer import PeerStatus
from node.model.unit import Unit
from protocol.linear.field import P
from protocol.linear.messages import Linear, LinearResult

# --- any peers at all

names = st.sampled_from(sorted(SCRIPTS))
lanes = st.lists(st.lists(names, min_size=2, max_size=2), min_size=1, max_size=3)


@pytest.mark.parametrize("mode", ["split", "strict"])
@given(lanes=lanes, steps=st.lists(st.sampled_from([1, 1, 2, 9, 21]), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_peers_and_any_steps(mode: str, lanes: list[list[str]], steps: list[int]) -> None:
    with swarm_of(mode, lanes) as swarm:
        for index, num_rows in enumerate(steps):
            swarm.step(num_rows, seed=index)
        check(swarm)


@pytest.mark.parametrize("mode", ["split", "strict"])
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_each_fault_of_a_share_peer(name: str, mode: str) -> None:
    with swarm_of(mode, [["honest", name][-1 if mode == "strict" else 0 :], ["honest", "honest"]]) as swarm:
        for index, num_rows in enumerate([9, 1, 1, 1, 9, 1]):
            swarm.step(num_rows, seed=index)
        check(swarm)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_each_fault_of_a_pad_guard(name: str) -> None:
    with swarm_of("split", [[name, "honest"], ["honest", "honest"]]) as swarm:
        for index, num_rows in enumerate([9, 1, 1, 1, 9, 1]):
            swarm.step(num_rows, seed=index)
        check(swarm)


# --- honest peers


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_honest_peers_do_all_of_it(mode: str) -> None:
    with swarm_of(mode, [["honest", "honest"]] * 2, FOREVER) as swarm:
        for num_rows in (40, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3):
            swarm.step(num_rows)
        check(swarm)
        counts = swarm.manager.counts
        assert (counts.local, counts.hedged, counts.rejected) == (0, 0, 0)
        assert counts.verified == counts.sent == counts.merged > 0
        assert all(peer.requests for peer in swarm.peers)


def test_what_has_arrived_is_used_however_late_it_is_read() -> None:
    with swarm_of("split", [["honest", "honest"]], AT_ONCE) as swarm:
        swarm.step(40)
        swarm.step(1)
        check_counts(swarm)
        assert swarm.manager.counts.local == 0


def test_no_lane_at_all_is_this_device_alone() -> None:
    with Swarm(UNITS, "split") as swarm:
        swarm.step(9)
        check(swarm)
        assert swarm.manager.counts.local == swarm.manager.counts.merged == len(UNITS)
        assert swarm.manager.counts.sent == 0


def test_a_full_or_unconnected_peer_costs_nothing_but_local_work() -> None:
    with swarm_of("split", [["honest", "honest"]] * 3, FOREVER) as swarm:
        full_share, full_pad, gone = swarm.peers[1], swarm.peers[2], swarm.peers[4]
        full_share.channel.full = True
        full_pad.channel.full = True
        gone.channel.connected = False
        for num_rows in (9, 1, 1):
            swarm.step(num_rows)
        check_counts(swarm)
        check_privacy(swarm)
        assert swarm.manager.counts.verified == 0
        assert swarm.peers[5].requests == 0


# --- lies


@pytest.mark.parametrize("name", sorted(LIES))
def test_in_strict_mode_a_refused_share_is_done_by_another(name: str) -> None:
    with swarm_of("strict", [[f"lie: {name}"], ["honest"]], FOREVER) as swarm:
        swarm.step(9)
        bad, good = swarm.peers
        assert bad.session.status is PeerStatus.BANNED
        assert bad.requests >= 1
        assert swarm.manager.counts.rejected == 1
        assert swarm.manager.counts.local == 0
        assert swarm.manager.counts.verified == swarm.manager.counts.merged
        assert set(shares_of(bad)) <= set(shares_of(good))
        check(swarm)


@pytest.mark.parametrize("role", ["pad", "share"])
@pytest.mark.parametrize("name", sorted(LIES))
def test_in_split_mode_a_lane_with_a_liar_is_computed_here(name: str, role: str) -> None:
    lane = [f"lie: {name}", "honest"] if role == "pad" else ["honest", f"lie: {name}"]
    with swarm_of("split", [lane], FOREVER) as swarm:
        for num_rows in (9, 1, 1):
            swarm.step(num_rows)
        bad = swarm.peers[0 if role == "pad" else 1]
        assert bad.session.status is PeerStatus.BANNED
        assert swarm.manager.counts.rejected == 1
        assert swarm.manager.counts.verified == 0
        check(swarm)


def test_a_liar_is_banned_only_after_our_own_weights_were_looked_at() -> None:
    with swarm_of("strict", [["lie: one more"]], FOREVER) as swarm:
        before = swarm.manager.gate.checks.known(UNITS[0].ref)
        swarm.step(1)
        assert swarm.rechecked == [UNITS[0]]
        assert swarm.manager.gate.checks.known(UNITS[0].ref) is not before


def test_a_spoilt_check_of_ours_bans_nobody() -> None:
    with swarm_of("strict", [["honest"]], FOREVER) as swarm:
        check = swarm.manager.gate.checks.known(UNITS[0].ref)
        check.projections[0, 0, 0] ^= 1
        swarm.step(1)
        check_counts(swarm)
        assert swarm.manager.counts.rejected == 0
        assert swarm.manager.counts.local == 0
        assert swarm.rechecked == [UNITS[0]]


def test_corrupt_weights_of_ours_end_the_answer() -> None:
    with swarm_of("strict", [["lie: one more"]], FOREVER) as swarm:

        def recheck(unit: Unit) -> None:
            raise CorruptModelError("changed")

        swarm.manager.gate.recheck = recheck
        with pytest.raises(CorruptModelError):
            swarm.step(1)
        assert swarm.peers[0].session.status is PeerStatus.ACTIVE


def test_a_late_lie_is_a_lie() -> None:
    """The chunk was computed here long ago; the answer about it still counts against its author."""

    def lies_behind(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        peer.held.append((message_id, request))
        if len(peer.held) > 1:
            old_id, old = peer.held.pop(0)
            peer.lied = True
            peer.channel.answer(LIES["one more"](old, peer.compute(old), peer), old_id)

    with Swarm(UNITS, "strict", IMPATIENT) as swarm:
        (peer,) = swarm.add_lane(lies_behind)
        swarm.step(1)
        swarm.step(1, seed=2)
        assert peer.session.status is PeerStatus.BANNED
        check_counts(swarm)


# --- the harness itself is not blind


def test_the_checks_would_notice() -> None:
    def leaky(swarm: Swarm) -> None:
        peer = swarm.peers[-1]
        rows = (swarm.kernels.rows[0].astype(np.int64) % P).astype(np.uint32)
        request = peer.linears[0]
        peer.channel.send(Linear(request.binding, rows=rows), peer.heard[-1].id + 1)

    def reused(swarm: Swarm) -> None:
        swarm.kernels.pads.append(swarm.kernels.pads[0])

    def resent(swarm: Swarm) -> None:
        peer = swarm.peers[-1]
        for _ in range(2):
            peer.channel.send(peer.linears[0], peer.heard[-1].id + 1)

    def miscounted(swarm: Swarm) -> None:
        swarm.manager.counts.verified += 1

    for spoil, verdict in (
        (leaky, check_privacy),
        (reused, check_privacy),
        (resent, check_retries),
        (miscounted, check_counts),
    ):
        with swarm_of("split", [["honest", "honest"]], FOREVER) as swarm:
            swarm.step(3)
            check(swarm)
            spoil(swarm)
            with pytest.raises(AssertionError):
                verdict(swarm)


def test_the_scripts_do_what_they_say() -> None:
    """A liar's answer differs from the honest one, and the honest one passes the gate of the live path."""
    for name, lie in LIES.items():
        with Swarm(UNITS, "strict", FOREVER) as swarm:
            (peer,) = swarm.add_lane(liar(lie))
            swarm.step(9)
            request = peer.linears[0]
            peer.answered.clear()
            truth = peer.compute(request)
            told = lie(request, truth, peer)
            assert isinstance(told, LinearResult)
            same = told.rows.shape == truth.rows.shape and np.array_equal(told.rows, truth.rows)
            assert not same or told.digest != truth.digest, name
    assert np.array_equal(truth.rows, KERNELS.linear_field(UNITS[0].weights, request.rows.copy()))
    assert set(FAULTS) < set(SCRIPTS)
    assert one_behind in FAULTS.values() and every_other in FAULTS.values() and silent in FAULTS.values()


def test_two_sessions_do_not_share_ids() -> None:
    """An attached peer's connection outlives a session; an answer to the one before must not look like a lie."""
    ids: list[set[int]] = []
    for _ in range(2):
        with swarm_of("strict", [["honest"]], FOREVER) as swarm:
            swarm.step(9)
            ids.append({received.id for received in swarm.peers[0].heard})
    assert not ids[0] & ids[1]
