"""Peers that send what nobody asked for, fail without end, or cost more time than they are worth: they are left."""

import time

import pytest
from checked_swarm import AT_ONCE, FAILING, FOREVER, UNITS, check, check_counts, swarm_of
from made_parts import make_unit
from msgspec.structs import replace
from scripted_peer import (
    ScriptedPeer,
    every_other,
    honest,
    newest_first,
    silent,
)
from scripted_session import IMPATIENT, Swarm

from node.execution import roster
from node.execution.account import CREDIT_S, EXCUSED, FAILURE_S, UNASKED_LIMIT, Reason
from node.execution.config import ExecutionConfig
from node.execution.mailbox import MAX_MESSAGES_A_TURN
from node.execution.peer import MAX_ABANDONED, PeerStatus
from protocol import cbor
from protocol.envelope import KEY_BODY, KEY_ID, KEY_TYPE, MAGIC
from protocol.linear.messages import Linear

# --- noise on the line


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_a_flood_stops_nobody(mode: str) -> None:
    with swarm_of(mode, [["floods", "floods"], ["honest", "honest"]]) as swarm:
        started = time.monotonic()
        for num_rows in (9, 1, 1, 1):
            swarm.step(num_rows)
        assert time.monotonic() - started < 15
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


def test_a_message_without_an_end_ends_its_connection() -> None:
    """Nothing of it can be read before its last frame: what has come unread is all that tells of it."""
    with swarm_of("strict", [["honest"], ["honest"]], FOREVER) as swarm:
        endless, other = swarm.peers
        swarm.step(1)
        endless.channel.is_overfull = lambda owed_bytes: True  # type: ignore[method-assign]
        swarm.manager.attend(0.0)
        assert endless.session.status is PeerStatus.SHUT and endless.channel.closed
        assert other.session.status is PeerStatus.ACTIVE
        swarm.step(1)
        assert swarm.manager.counts.local == 0
