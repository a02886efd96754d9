"""Whatever peers do, the numbers are those of this device, the counts are true, and no peer learns a thing."""

import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_parts import KERNELS, make_rows, make_unit
from msgspec.structs import replace
from scripted_peer import (
    FAULTS,
    LIES,
    SCRIPTS,
    Script,
    ScriptedPeer,
    error,
    every_other,
    floods,
    garbage,
    honest,
    liar,
    lost,
    lost_and_back,
    newest_first,
    one_behind,
    silent,
)
from scripted_session import IMPATIENT, Swarm

from node.errors import CorruptModelError
from node.execution import execute_distributed, roster
from node.execution.account import CREDIT_S, EXCUSED, FAILURE_S, UNASKED_LIMIT, Reason
from node.execution.chunk import ChunkState
from node.execution.config import ExecutionConfig
from node.execution.mailbox import MAX_MESSAGES_A_TURN
from node.execution.manager import MAX_ATTEMPTS, NOT_AGAIN
from node.execution.peer import LATE_LIMIT, MAX_ABANDONED, REST_FIRST_S, PeerStatus
from node.model.unit import Unit
from protocol import cbor
from protocol.envelope import KEY_BODY, KEY_ID, KEY_TYPE, MAGIC
from protocol.limits import ROW_BUCKETS
from protocol.linear.field import P
from protocol.linear.messages import Linear, LinearResult, Role
from protocol.message import ErrorCode

UNITS = [make_unit(20, 6), make_unit(530, 5, layer=1, kind="qkv")]
FOREVER = ExecutionConfig(progress_limit_s=1000, hedge_floor_s=1000)
FAILING = error(ErrorCode.INTERNAL)
AT_ONCE = ExecutionConfig(progress_limit_s=0, hedge_factor=0, hedge_floor_s=0, hedge_unmeasured_s=0)


def swarm_of(mode: str, lanes: list[list[str]], config: ExecutionConfig = IMPATIENT) -> Swarm:
    swarm = Swarm(UNITS, mode, config)
    for names in lanes:
        swarm.add_lane(*(SCRIPTS[name] for name in names[: 1 if mode == "strict" else 2]))
    return swarm


def shares_of(peer: ScriptedPeer) -> list[bytes]:
    return [request.rows.tobytes() for request in peer.linears if request.rows is not None]


def check_counts(swarm: Swarm) -> None:
    """What the ledger says is what the records of all chunks and the peers themselves say."""
    counts = swarm.manager.counts
    assert all(life[-1] is ChunkState.MERGED for life in swarm.lives.values())
    ended = Counter(swarm.ended)
    assert counts.merged == len(swarm.lives) == counts.verified + counts.local
    assert counts.verified == ended[ChunkState.VERIFIED]
    assert counts.hedged == ended[ChunkState.HEDGED]
    assert counts.local == ended[ChunkState.HEDGED] + ended[ChunkState.LOCAL]
    assert counts.sent == sum(ChunkState.SENT in life for life in swarm.lives.values())
    assert counts.rejected == sum(peer.session.rejected for peer in swarm.peers)
    assert counts.rejected == sum(peer.session.status is PeerStatus.BANNED for peer in swarm.peers)
    for peer in swarm.peers:
        assert peer.session.chunks == peer.requests
        assert peer.channel.bytes_up == sum(len(frame) for frames in peer.channel.sent for frame in frames)


def check_bans(swarm: Swarm) -> None:
    """Who lied is banned (the channel asserts that it is never asked again); who did not is not."""
    for peer in swarm.peers:
        if peer.lied and peer.script is not floods:
            assert peer.session.status is PeerStatus.BANNED
            assert peer.channel.closed
        elif peer.script is not garbage and not peer.lied:
            assert peer.session.status is not PeerStatus.BANNED


def check_retries(swarm: Swarm) -> None:
    """A share goes out twice at most, word for word, and in split mode never beyond its lane."""
    holders: dict[bytes, list[ScriptedPeer]] = defaultdict(list)
    for peer in swarm.peers:
        for share in shares_of(peer):
            holders[share].append(peer)
    for peers in holders.values():
        assert len(peers) <= MAX_ATTEMPTS
        if swarm.mode == "split":
            assert len(set(map(id, peers))) == 1
    assert len(holders) == swarm.manager.counts.sent


def check_privacy(swarm: Swarm) -> None:
    """By schema, by role and by content: seeds to one side, noise to the other, and no pad twice."""
    pads = [pad for pad in swarm.kernels.pads if len(pad) > 0]
    assert len(set(pads)) == len(pads)
    plain = [rows.tobytes() for rows in swarm.kernels.rows if rows.any()]
    in_field = [(rows.astype(np.int64) % P).astype("<u4").tobytes() for rows in swarm.kernels.rows if rows.any()]
    seeds_sent: list[bytes] = []
    for peer in swarm.peers:
        for request in peer.linears:
            assert request.binding.row_start == 0
            assert request.binding.num_rows in ROW_BUCKETS
            if peer.session.role is Role.PAD:
                assert request.rows is None and request.seed is not None
                assert request.binding.role is Role.PAD
                seeds_sent.append(request.seed)
            else:
                assert request.seed is None and request.rows is not None
                assert request.binding.role is Role.SHARE
        everything = b"".join(b"".join(frames) for frames in peer.channel.sent)
        for secret in [b"M" * 32, *plain, *in_field, *swarm.kernels.pads]:
            if len(secret) >= 8:
                assert secret not in everything
        if peer.session.role is Role.SHARE:
            assert not [seed for seed in swarm.seeds.made if seed in everything]
        kinds = {type(received.message).__name__ for received in peer.heard}
        assert kinds <= {"Linear", "Cancel"}
        ids = [received.id for received in peer.heard if isinstance(received.message, Linear)]
        assert ids == sorted(set(ids))
        assert all(
            received.message.binding.nonce == received.id
            for received in peer.heard
            if isinstance(received.message, Linear)
        )
    assert len(set(seeds_sent)) == len(seeds_sent)
    assert swarm.mode == "split" or not seeds_sent


def check(swarm: Swarm) -> None:
    check_counts(swarm)
    check_bans(swarm)
    check_retries(swarm)
    check_privacy(swarm)
    assert max(swarm.manager.waits, default=0) <= swarm.manager._config.progress_limit_s


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


# --- silence, lateness, loss


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_silence_is_waited_for_as_long_as_configured(mode: str) -> None:
    with swarm_of(mode, [["silent", "silent"]]) as swarm:
        started = time.monotonic()
        for _ in range(6):
            swarm.step(1)
        assert time.monotonic() - started < 2
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


# --- noise on the line


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_a_flood_stops_nobody(mode: str) -> None:
    with swarm_of(mode, [["floods", "floods"], ["honest", "honest"]]) as swarm:
        started = time.monotonic()
        for num_rows in (9, 1, 1, 1):
            swarm.step(num_rows)
        assert time.monotonic() - started < 3
        check(swarm)
        assert swarm.manager.counts.verified > 0


def test_a_reply_that_cannot_be_read_is_a_lie() -> None:
    with swarm_of("strict", [["garbage"], ["honest"]], FOREVER) as swarm:
        swarm.step(9)
        assert swarm.peers[0].session.status is PeerStatus.BANNED
        assert swarm.manager.counts.rejected == 1
        assert swarm.manager.counts.local == 0
        check(swarm)


@pytest.mark.parametrize("name", ["twice", "other kind, then the answer", "foreign id"])
def test_stray_messages_change_nothing(name: str) -> None:
    config = IMPATIENT if name == "foreign id" else FOREVER
    with swarm_of("strict", [["honest"], [name]], config) as swarm:
        for num_rows in (9, 1, 9):
            swarm.step(num_rows)
        check(swarm)
        assert all(peer.session.status is not PeerStatus.BANNED for peer in swarm.peers)
        if config is FOREVER:
            assert swarm.manager.counts.local == 0


def test_results_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "max_rows_per_chunk", lambda num_inputs, num_outputs: 8)
    with Swarm(UNITS, "strict", FOREVER) as swarm:
        (peer,) = swarm.add_lane(newest_first)
        swarm.step(16)  # two chunks a unit; the second is answered first
        assert peer.requests == 2 * len(UNITS)
        assert swarm.manager.counts.local == 0
        check(swarm)


def test_a_peer_computes_no_longer_than_it_was_waited_for() -> None:
    """What it says goes into the receipt; it may say anything."""

    def boastful(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        peer.channel.answer(replace(peer.compute(request), compute_us=1 << 61), message_id)

    with Swarm(UNITS, "strict", FOREVER) as swarm:
        swarm.add_lane(boastful)
        started = time.monotonic()
        swarm.step(9)
        assert 0 < swarm.manager.timings.seconds["peers"] <= len(UNITS) * (time.monotonic() - started)
        check(swarm)


# --- patience


def test_no_two_peers_see_the_same_session_or_neighbouring_ids() -> None:
    """Guards who compare their records must not be able to match them by what the messages carry."""
    with swarm_of("split", [["honest", "honest"], ["honest", "honest"]], FOREVER) as swarm:
        swarm.step(9)
        told = [[received for received in peer.heard if isinstance(received.message, Linear)] for peer in swarm.peers]
        sessions = [{received.message.binding.session for received in heard} for heard in told]  # type: ignore[union-attr]
        assert all(len(session) == 1 for session in sessions) and len(set.union(*sessions)) == len(sessions)
        ids = [received.id for heard in told for received in heard]
        assert len(set(ids)) == len(ids)
        assert min(abs(heard[0].id - other[0].id) for heard in told for other in told if heard is not other) > 10**6


@pytest.mark.parametrize("role", ["pad", "share", "strict"])
def test_a_peer_that_answers_errors_to_everything_is_left_and_tried_again(role: str) -> None:
    lane = {"pad": [FAILING, honest], "share": [honest, FAILING], "strict": [FAILING]}[role]
    with Swarm(UNITS, "strict" if role == "strict" else "split", FOREVER) as swarm:
        swarm.add_lane(*lane)
        peer = swarm.peers[1 if role == "share" else 0]
        account = peer.session.account
        for _ in range(20):
            swarm.step(1)
        assert peer.requests <= CREDIT_S / FAILURE_S + 1
        assert account.reason is Reason.FAILING and peer.session.standing == "failing"
        asked = peer.requests
        account.rests_until = 0.0
        swarm.step(1)
        assert asked < peer.requests <= asked + 2, "one error on trial is enough"
        assert not peer.session.usable
        peer.script = honest
        account.rests_until = 0.0
        for _ in range(40):
            swarm.step(1)
        assert account.reason is None and peer.session.standing == "active"
        assert swarm.manager.counts.verified > 20
        check(swarm)


@pytest.mark.parametrize("role", ["pad", "share", "strict"])
def test_junk_before_each_answer_ends_the_connection(role: str) -> None:
    def junk_first(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        answer = peer.compute(request)
        for number in range(20):
            peer.channel.answer(answer, (1 << 61) + 100 * peer.requests + number)
        peer.channel.answer(answer, message_id)

    lane = {"pad": [junk_first, honest], "share": [honest, junk_first], "strict": [junk_first]}[role]
    with Swarm(UNITS, "strict" if role == "strict" else "split", FOREVER) as swarm:
        swarm.add_lane(*lane)
        peer = swarm.peers[1 if role == "share" else 0]
        for _ in range(120):
            swarm.step(1)
            peer.session.account.rests_until = 0.0
        assert peer.session.status is PeerStatus.SHUT and peer.channel.closed and not peer.session.usable
        assert peer.session.standing == "noisy" and peer.requests < (EXCUSED + UNASKED_LIMIT) / 20 + 4
        assert swarm.manager.counts.rejected == 0
        check(swarm)


def test_messages_of_unknown_types_count_too() -> None:
    """They are answered with an error where they are read, and never reach the session."""
    unknown = [MAGIC + cbor.encode({KEY_TYPE: 999, KEY_ID: 7, KEY_BODY: {}})]

    def chatter(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        for _ in range(3 * MAX_MESSAGES_A_TURN):
            peer.channel.answer_frames(unknown)

    with Swarm(UNITS, "strict", IMPATIENT) as swarm:
        (peer,) = swarm.add_lane(chatter)
        for _ in range(3):
            swarm.step(1)
        account = peer.session.account
        assert account.unasked + EXCUSED - account.excused > 0


def test_answers_that_were_given_up_are_nobodys_fault() -> None:
    """A peer that froze and comes back answers everything at once; most of it is not even remembered here."""
    with Swarm(UNITS, "strict", AT_ONCE) as swarm:
        (peer,) = swarm.add_lane(silent)
        owed: list[tuple[int, Linear]] = []
        peer.script = lambda peer, message_id, request: owed.append((message_id, request))
        for _ in range(100):
            peer.session.resume()
            swarm.step(1)
        assert len(owed) > MAX_ABANDONED + EXCUSED
        for message_id, request in owed:
            honest(peer, message_id, request)
        peer.script = honest
        for _ in range(8):
            swarm.step(1)
        assert peer.session.account.unasked == 0 and peer.session.account.left_for is None
        assert peer.session.status is PeerStatus.ACTIVE


def test_late_peers_are_left_one_after_the_other_and_a_pass_waits_once() -> None:
    """Every other answer never comes: each costs the least patience, until the credit is used up."""
    config = replace(IMPATIENT, credit_s=0.1)
    units = [make_unit(20, 6, layer=layer) for layer in range(8)]
    with Swarm(units, "strict", config) as swarm:
        for _ in range(2):
            (peer,) = swarm.add_lane(every_other)
            peer.session.measures.ponged(0.0, 0)
        for _ in range(12):
            swarm.step(1)
        assert all(peer.session.account.left_for is Reason.LATE for peer in swarm.peers)
        assert swarm.manager.counts.hedged < 20
        asked = [peer.requests for peer in swarm.peers]
        for peer in swarm.peers:
            peer.session.account.rests_until = time.monotonic() + 1000
        swarm.step(9)
        assert [peer.requests for peer in swarm.peers] == asked
        check(swarm)


def test_a_pass_that_has_waited_enough_waits_for_nobody() -> None:
    """Three silent peers and one pass through eight layers: one credit, not three."""
    config = ExecutionConfig(hedge_unmeasured_s=0.08, hedge_floor_s=0.01, credit_s=0.1)
    units = [make_unit(20, 6, layer=layer) for layer in range(8)]
    with Swarm(units, "strict", config) as swarm:
        for _ in range(3):
            swarm.add_lane(silent)
        for peer in swarm.peers:
            peer.session.measures.ponged(0.0, 0)
        swarm.step(1)
        assert sum(peer.requests for peer in swarm.peers) <= 3
        assert swarm.manager.counts.local == len(units)
        check_counts(swarm)


def test_a_slow_peer_loses_rows_to_a_fast_one() -> None:
    with swarm_of("strict", [["honest"], ["honest"]], FOREVER) as swarm:
        slow, _fast = swarm.peers
        slow.session.measures.stated_macs_per_s = 1e3
        slow.session.measures.ponged(1.0, 0)
        swarm.step(32)
        rows = [
            sum(len(request.rows) for request in peer.linears if request.rows is not None) for peer in swarm.peers
        ]
        assert rows[0] < rows[1] / 4
        asked = slow.requests
        swarm.step(1)
        assert slow.requests == asked
        check(swarm)


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
