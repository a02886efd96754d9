"""How long peers are waited for: whole passes on a clock that is a number, against peers of every kind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import MODEL_ID, identity, make_unit

from node.execution.account import CREDIT_S, TRIAL_S, Reason
from node.execution.chunk import Chunk, ChunkEvent, ChunkRecord
from node.execution.config import ExecutionConfig
from node.execution.lane import Lane
from node.execution.patience import LocalSpeed, Patience
from node.execution.peer import SessionPeer
from node.measures.peers import Exchange
from node.measures.series import MIN_SAMPLES
from protocol.linear.messages import Role

UNIT = make_unit(20, 6)
CONFIG = ExecutionConfig()
MACS_PER_S = 1e9
UNITS_A_PASS = 24
LOCAL_S = 1e-4
Delay = Callable[[int], float]
"""Seconds that a peer takes for its answer number n."""


class Made:
    """A product of pads that is there, or not yet."""

    failed = False
    batch_rows = 1

    def __init__(self) -> None:
        self.made: np.ndarray | None = None

    def products(self) -> np.ndarray | None:
        return self.made


class Playground:
    """A session's patience, a clock that is a number, and lanes whose peers answer as late as they like."""

    def __init__(self, *delays: tuple[Delay | None, Delay], ping_s: float | None = 0.001) -> None:
        self.patience = Patience(CONFIG, MODEL_ID, LocalSpeed(MACS_PER_S))
        self.now = 1000.0
        self.waited_s = 0.0
        self.longest_pass_s = 0.0
        self.chunks = 0
        self.hedged = 0
        self._delays: dict[int, Delay] = {}
        self._answers: dict[int, int] = {}
        self.lanes = [self._lane(index, *pair, ping_s) for index, pair in enumerate(delays)]

    def _lane(self, index: int, guard: Delay | None, share: Delay, ping_s: float | None) -> Lane:
        peers = [self._peer(2 * index, Role.PAD, guard, ping_s)] if guard is not None else [None]
        pads: Any = SimpleNamespace(maker=peers[0], usable=True, takes_rows=True, binds_rows=guard is not None)
        return Lane(index, self._peer(2 * index + 1, Role.SHARE, share, ping_s), pads)

    def _peer(self, index: int, role: Role, delay: Delay, ping_s: float | None) -> SessionPeer:
        channel: Any = SimpleNamespace(connected=True)
        peer = SessionPeer(identity(index).peer_id, role, channel, model_id=MODEL_ID)
        if ping_s is not None:
            peer.measures.ponged(ping_s, 0)
        self._delays[id(peer)] = delay
        return peer

    @property
    def peers(self) -> list[SessionPeer]:
        return [peer for lane in self.lanes for peer in (lane.share_peer, lane.guard) if peer is not None]

    def allowed_s(self, peer: SessionPeer) -> float:
        return self.patience.allowed_s(peer, UNIT.ref, 1)

    def play(self, num_passes: int) -> None:
        """So many tokens; each layer goes to the first lane that is not left."""
        for _ in range(num_passes):
            self.patience.begin_pass()
            began_s = self.waited_s
            for _unit in range(UNITS_A_PASS):
                lane = next((lane for lane in self.lanes if self._usable(lane)), None)
                if lane is not None and not self.patience.used_up:
                    self._chunk(lane)
                self.now += LOCAL_S
            self.longest_pass_s = max(self.longest_pass_s, self.waited_s - began_s)

    def _usable(self, lane: Lane) -> bool:
        return not any(peer.account.resting(self.now) for peer in (lane.share_peer, lane.guard) if peer is not None)

    def _chunk(self, lane: Lane) -> None:
        """What `distributed` does with one chunk, on this clock."""
        self.chunks += 1
        record = ChunkRecord(Chunk(UNIT.ref, 0, 1, 0, 1, 1), lane.index, sent_at=self.now)
        record.advance(ChunkEvent.SEND)
        record.share = np.zeros((1, UNIT.ref.num_inputs), np.uint32)
        record.ticket = Made()
        arrivals = {
            id(peer): self.now + self._delay(peer) for peer in (lane.share_peer, lane.guard) if peer is not None
        }
        while owing := self.patience.owing(record, lane):
            left_s = self.patience.left_s(record, lane, self.now)
            assert self.patience.surely_left_s(record, self.now) <= left_s
            if left_s <= 0:
                self.hedged += 1
                self.patience.gave_up(record, lane, self.now, late=True)
                return
            next_at = min(arrivals[id(peer)] for peer in owing)
            waited_s = min(left_s, max(next_at - self.now, 0.0))
            self.now += waited_s
            self.waited_s += waited_s
            self.patience.waited(owing, waited_s, self.now)
            for peer in owing:
                if arrivals[id(peer)] <= self.now:
                    self._arrive(record, peer, lane)
        self.patience.served(record, lane, self.now)

    def _delay(self, peer: SessionPeer) -> float:
        number = self._answers[id(peer)] = self._answers.get(id(peer), 0) + 1
        return self._delays[id(peer)](number)

    def _arrive(self, record: ChunkRecord, peer: SessionPeer, lane: Lane) -> None:
        peer.measures.answered(MODEL_ID, Exchange(1, 120, 100, self.now - record.sent_at, 1e-5))
        peer.resume()
        if peer is lane.guard:
            record.ticket.made = np.zeros((1, 20), np.uint32)
        else:
            record.result = np.zeros((1, 20), np.uint32)


def quick(number: int) -> float:
    return 0.002


def late(seconds: float) -> Delay:
    return lambda number: seconds


def trials_of(peer: SessionPeer) -> float:
    return math.log2(peer.account.rest_s) + 1 if peer.account.rest_s else 0


def bound_s(ground: Playground) -> float:
    """What SPEC.md section 9 says that an answer waits at most."""
    allowed_s = sum(ground.allowed_s(peer) for peer in ground.peers) / len(ground.lanes)
    extra_s = sum(CREDIT_S + trials_of(peer) * (TRIAL_S + CONFIG.hedge_floor_s) for peer in ground.peers)
    return ground.chunks * allowed_s + extra_s


@pytest.mark.parametrize("seconds", [0.04, 0.3, 0.9, 5.0, 1000.0])
@pytest.mark.parametrize("role", ["pad", "share", "strict", "both"])
def test_a_guard_that_is_always_late_is_left_within_a_few_tokens(seconds: float, role: str) -> None:
    guard = {"pad": late(seconds), "share": quick, "both": late(seconds)}.get(role)
    ground = Playground((guard, quick if role == "pad" else late(seconds)))
    ground.play(4)
    assert any(peer.account.reason is Reason.LATE for peer in ground.peers)
    assert ground.waited_s < 2.2
    before_s = ground.waited_s
    ground.play(30)
    assert ground.waited_s - before_s < 0.5, "it is tried again, seldom and for little"


@pytest.mark.parametrize("step_s", [0.0005, 0.002, 0.02])
def test_a_guard_that_grows_later_each_time_stretches_nothing(step_s: float) -> None:
    ground = Playground((None, lambda number: step_s * number))
    ground.play(30)
    assert ground.peers[0].account.left_for is Reason.LATE
    assert ground.waited_s <= bound_s(ground)
    assert ground.waited_s < 3


def test_two_slow_peers_cost_twice_a_credit_and_one_pass_one_credit() -> None:
    ground = Playground((None, late(0.9)), (None, late(0.9)), (None, late(0.9)))
    ground.play(10)
    assert all(peer.account.left_for is Reason.LATE for peer in ground.peers)
    allowed_s = UNITS_A_PASS * ground.allowed_s(ground.peers[0])
    assert ground.longest_pass_s <= CREDIT_S + allowed_s + CONFIG.hedge_floor_s
    assert ground.waited_s <= bound_s(ground)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.sampled_from([None, 0.0, 0.001, 0.08, 0.5, 30.0]))
@settings(deadline=None, max_examples=60)
def test_whatever_peers_do_an_answer_waits_no_longer_than_stated(delays: list[float], ping_s: float | None) -> None:
    """Pings included: who answers them late gets the longest way that is believed, and no more."""

    def share(number: int) -> float:
        return delays[number % len(delays)]

    def guard(number: int) -> float:
        return delays[(7 * number + 3) % len(delays)]

    ground = Playground((guard, share), ping_s=ping_s)
    ground.play(12)
    assert ground.waited_s <= bound_s(ground)
    most_s = CONFIG.exchange_s + CONFIG.way_factor * CONFIG.way_limit_s + 0.001
    assert all(ground.allowed_s(peer) <= most_s for peer in ground.peers)
    assert ground.longest_pass_s <= UNITS_A_PASS * most_s + CREDIT_S + CONFIG.hedge_floor_s


@pytest.mark.parametrize("rtt_s", [0.0005, 0.02, 0.08])
def test_a_healthy_peer_is_never_left_however_far_it_is(rtt_s: float) -> None:
    """Its way and a few milliseconds, a fifth more now and then, and one packet lost in three hundred."""
    chance = random.Random(5)

    def honest(number: int) -> float:
        return (rtt_s + 0.002) * chance.uniform(1, 1.2) + (0.2 if number % 300 == 0 else 0)

    ground = Playground((honest, honest), ping_s=rtt_s)
    ground.play(60)
    assert all(peer.account.left_for is None for peer in ground.peers)
    assert ground.hedged <= ground.chunks / 100


def test_pads_that_come_together_are_paid_for_row_by_row() -> None:
    """One exchange brings pads of eight rows: what it may take is not earned eight times."""
    ground = Playground((quick, quick))
    lane = ground.lanes[0]
    assert lane.guard is not None
    record = ChunkRecord(Chunk(UNIT.ref, 0, 1, 0, 1, 1), 0, sent_at=ground.now)
    record.ticket = Made()
    record.ticket.batch_rows = 8
    lane.guard.account.debt_s = lane.share_peer.account.debt_s = 0.9
    for _ in range(8):
        ground.patience.served(record, lane, ground.now)
    assert lane.guard.account.debt_s == pytest.approx(0.9 - ground.patience.allowed_s(lane.guard, UNIT.ref, 8))
    assert lane.share_peer.account.debt_s < 0.9 - 7 * ground.allowed_s(lane.share_peer)


def test_a_way_that_was_not_measured_is_believed_to_be_long() -> None:
    ground = Playground((None, late(0.08)), ping_s=None)
    ground.play(20)
    assert ground.hedged == 0 and ground.peers[0].account.left_for is None


def test_a_peer_that_recovers_is_used_again() -> None:
    ground = Playground((None, lambda number: 0.3 if number < 10 else 0.002))
    ground.play(3)
    account = ground.peers[0].account
    assert account.resting(ground.now)
    ground.now = account.rests_until
    served = ground.chunks - ground.hedged
    for _ in range(6):  # what is left of its bad time costs it more trials
        ground.play(5)
        ground.now = max(ground.now, account.rests_until)
    assert ground.chunks - ground.hedged > served + UNITS_A_PASS and account.reason is None


def test_a_chunk_that_takes_long_here_may_take_long_there() -> None:
    """A large layer on a slow device: peers get four times what it takes here, whatever the floor is."""
    patience = Patience(CONFIG, MODEL_ID, LocalSpeed(1e9))
    peer = Playground((None, quick)).peers[0]
    large = make_unit(4096, 4096).ref
    assert patience.allowed_s(peer, large, 1) == pytest.approx(4 * 4096 * 4096 / 1e9, abs=0.02)
    assert patience.allowed_s(peer, large, 8) > 7 * patience.allowed_s(peer, large, 1) - 0.1


def test_what_layers_take_here_is_learnt_from_layers() -> None:
    """Weights that come from a disk make this device slow: peers are then worth waiting for."""
    local, ref = LocalSpeed(1e12), make_unit(100, 100).ref
    assert local.predicted_s(ref, 1) == pytest.approx(1e-8)
    for _ in range(MIN_SAMPLES):
        local.computed(ref, 1, 0.5)
    local.computed(ref, 1, 90.0)
    assert local.predicted_s(ref, 1) == pytest.approx(0.5)
    assert local.predicted_s(ref, 8) == pytest.approx(8e-8), "many rows are another matter"


def test_a_peers_past_buys_it_no_more_than_its_credit() -> None:
    def left_s(usual_s: float | None) -> float:
        ground = Playground((None, quick))
        peer, lane = ground.peers[0], ground.lanes[0]
        for _ in range(MIN_SAMPLES if usual_s is not None else 0):
            peer.measures.answered(MODEL_ID, Exchange(1, 100, 100, usual_s or 0.0, 1e-6))
        record = ChunkRecord(Chunk(UNIT.ref, 0, 1, 0, 1, 1), 0, sent_at=ground.now)
        record.share, record.ticket = np.zeros((1, 6), np.uint32), Made()
        return ground.patience.left_s(record, lane, ground.now)

    assert left_s(None) == pytest.approx(CONFIG.hedge_unmeasured_s, abs=0.02)
    assert left_s(0.001) == pytest.approx(CONFIG.hedge_floor_s)
    assert left_s(0.1) == pytest.approx(0.3)
    assert left_s(9.0) == pytest.approx(CREDIT_S, abs=0.02)
