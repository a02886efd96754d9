"""Whose request is computed next: time is shared fairly, memory is bounded, nothing is lost."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued_jobs import PEERS, ROUTES, all_served, full, job, nobody_is_full, relaxed, served

from node.serving import turns
from node.serving.turns import MAX_DEBT_S, MAX_SAVED_S, Turns
from node.serving.work_queue import MAX_JOBS_A_PEER, MAX_JOBS_A_ROUTE, WorkQueue
from protocol.identity import PeerId

# --- time


def test_peers_take_turns() -> None:
    queue = WorkQueue()
    for index in range(4):
        assert queue.push(job(0, index))
    assert served(queue) == (0, 0)
    for index in range(2):
        assert queue.push(job(1, index))
    assert queue.push(job(2, 0))
    assert all_served(queue) == [(2, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 3)]


def test_a_short_request_is_computed_between_two_parts_of_a_long_one() -> None:
    queue = WorkQueue()
    assert queue.push(job(0, 1, row_end=512))
    long = queue.take(nobody_is_full)
    assert long is not None
    queue.charge(PEERS[0], 0.001)
    assert queue.push(job(1, 1))
    assert queue.has_single(nobody_is_full) and queue.start_s(PEERS[1]) < queue.start_s(PEERS[0])
    assert served(queue) == (1, 1)
    assert queue.take(nobody_is_full) is long
    queue.finish(long)
    assert queue.take(nobody_is_full) is None


def test_a_long_request_counts_as_many_short_ones() -> None:
    queue = WorkQueue()
    for index in range(100):
        assert queue.push(job(0, index)) and queue.push(job(1, index))
    spent = Counter[int]()
    costs = {0: 0.010, 1: 0.001}
    for _ in range(66):
        following = queue.take(nobody_is_full)
        assert following is not None
        peer = PEERS.index(following.peer_id)
        queue.charge(following.peer_id, costs[peer])
        queue.finish(following)
        spent[peer] += 1
    assert spent == {0: 6, 1: 60}


def test_a_session_of_single_rows_is_served_at_once_beside_many_long_ones() -> None:
    """It uses less than its share, so nobody is before it, whatever happened just then."""
    queue = WorkQueue()
    for peer in range(3):
        assert queue.push(job(peer, 0, row_end=512))
    waited = []
    for round_ in range(200):
        for _ in range(3):
            following = queue.take(nobody_is_full)
            assert following is not None
            queue.charge(following.peer_id, 0.0005)
        assert queue.push(job(3, round_))
        following = queue.take(nobody_is_full)
        assert following is not None
        waited.append(following.peer_id != PEERS[3])
        if following.peer_id == PEERS[3]:
            queue.charge(PEERS[3], 0.0003)
            queue.finish(following)
    assert not any(waited[1:])


arrivals = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 8), st.integers(0, 3)),  # peer, parts of its job, parts served after
    min_size=1,
    max_size=120,
)


@given(arrivals, st.lists(st.floats(1e-5, 1e-3), min_size=4, max_size=4))
@relaxed
def test_whoever_waits_gets_its_share_within_one_part(steps: list[tuple[int, int, int]], costs: list[float]) -> None:
    """Between any two peers that both wait all the while, time used differs by a part of each and what may be saved;
    and the worker never rests while somebody waits."""
    queue = WorkQueue()
    left: dict[int, list[int]] = {peer: [] for peer in range(4)}
    since: dict[tuple[int, int], tuple[float, float]] = {}
    used = dict.fromkeys(range(4), 0.0)
    bound = 2 * max(costs) + MAX_SAVED_S

    def serve() -> None:
        following = queue.take(nobody_is_full)
        if following is None:
            assert not any(left.values()), "work conserving"
            return
        peer = PEERS.index(following.peer_id)
        used[peer] += costs[peer]
        queue.charge(PEERS[peer], costs[peer])
        left[peer][0] -= 1
        if not left[peer][0]:
            left[peer].pop(0)
            queue.finish(following)
        check()

    def check() -> None:
        for first in range(4):
            for second in range(first):
                pair = first, second
                if not (left[first] and left[second]):
                    since.pop(pair, None)
                    continue
                start = since.setdefault(pair, (used[first], used[second]))
                ahead = (used[first] - start[0]) - (used[second] - start[1])
                assert abs(ahead) <= bound + 1e-9

    for number, (peer, parts, after) in enumerate(steps):
        if queue.push(job(peer, number)):
            left[peer].append(parts)
        check()
        for _ in range(after):
            serve()
    while any(left.values()):
        serve()
    assert queue.take(nobody_is_full) is None


def test_time_used_beyond_the_others_is_not_held_against_a_peer_for_ever() -> None:
    turns_ = Turns()
    turns_.charge(PEERS[0], 3600.0)
    assert turns_.start_s(PEERS[0]) == MAX_DEBT_S
    spent = 0.0
    while turns_.next(PEERS[:2]) == PEERS[1]:
        turns_.charge(PEERS[1], 0.01)
        spent += 0.01
    assert spent <= MAX_DEBT_S + 0.02


def test_a_new_peer_has_saved_nothing() -> None:
    turns_ = Turns()
    for _ in range(100):
        assert turns_.next(PEERS[:1]) == PEERS[0]
        turns_.charge(PEERS[0], 0.001)
    assert turns_.start_s(PEERS[1]) > turns_.start_s(PEERS[0]) - 0.002


def test_few_peers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_KNOWN", 8)
    turns_ = Turns()
    for index in range(100):
        turns_.charge(PeerId(str(index)), 0.001)
    assert len(turns_._used_s) == 8


# --- connections


def test_who_cannot_take_an_answer_is_passed_over() -> None:
    queue = WorkQueue()
    for peer, request_id in ((0, 1), (1, 1), (0, 2)):
        assert queue.push(job(peer, request_id))
    following = queue.take(full((0, b"one")))
    assert following is not None and following.peer_id == PEERS[1]
    queue.finish(following)
    assert queue.take(full((0, b"one"))) is None
    assert not queue.ready(full((0, b"one")))
    assert queue.ready(nobody_is_full)
    assert all_served(queue) == [(0, 1), (0, 2)]


def test_a_stalled_session_stops_none_of_its_peers_others() -> None:
    queue = WorkQueue()
    refused = [index for index in range(MAX_JOBS_A_PEER) if not queue.push(job(0, index, route=ROUTES[0]))]
    assert len(refused) == MAX_JOBS_A_PEER - MAX_JOBS_A_ROUTE
    stalled = full((0, ROUTES[0]))
    for index in (1001, 1002):
        assert queue.push(job(0, index, route=ROUTES[1]))
        following = queue.take(stalled)
        assert following is not None and following.request_id == index
        queue.finish(following)
    assert queue.take(stalled) is None


def test_sessions_of_a_peer_take_turns() -> None:
    queue = WorkQueue()
    for index in range(3):
        for number, route in enumerate(ROUTES):
            assert queue.push(job(0, 10 * number + index, route=route))
    assert [request_id for _, request_id in all_served(queue)] == [0, 10, 20, 1, 11, 21, 2, 12, 22]
