"""Whose request is computed next: time is shared fairly, memory is bounded, nothing is lost."""

import math
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import MODEL_ID, identity
from msgspec.structs import replace

from node.serving import turns, work_queue
from node.serving.turns import MAX_DEBT_S, MAX_SAVED_S, Turns
from node.serving.work_queue import MAX_JOBS_A_PEER, MAX_JOBS_A_ROUTE, MAX_PEERS, Job, Path, Route, WorkQueue
from node.serving.worker import Answer
from protocol.identity import PeerId
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.message import ErrorCode, ErrorReply

relaxed = settings(deadline=None, max_examples=100)
BINDING = ChunkBinding(bytes(16), 1, MODEL_ID, bytes(32), Role.PAD, 0, 1, 0, 1)
SEED = bytes(range(32))
PEERS: list[PeerId] = [identity(index).peer_id for index in range(4)]
ROUTES = [b"one", b"two", b"three"]
DONE = ErrorReply(ErrorCode.NOT_FOUND, "done")


def job(peer: int, request_id: int, num_bytes: int = 0, route: Route = b"one", **binding: Any) -> Job:
    bound = replace(BINDING, **binding)
    if not num_bytes:
        return Job(PEERS[peer], request_id, Linear(bound, seed=SEED), None, route)
    rows = np.zeros((1, num_bytes // 4), np.uint32)
    return Job(PEERS[peer], request_id, Linear(replace(bound, role=Role.SHARE), rows=rows), None, route)


def nobody_is_full(path: Path) -> bool:
    return False


def full(*paths: tuple[int, Route]) -> Callable[[Path], bool]:
    return {(PEERS[peer], route) for peer, route in paths}.__contains__


def served(queue: WorkQueue, seconds: float = 0.001) -> tuple[int, int] | None:
    """Compute the next job in one part, which takes so long."""
    following = queue.take(nobody_is_full)
    if following is None:
        return None
    queue.charge(following.peer_id, seconds)
    queue.finish(following)
    return PEERS.index(following.peer_id), following.request_id


def all_served(queue: WorkQueue) -> list[tuple[int, int]]:
    return list(iter(lambda: served(queue), None))  # type: ignore[arg-type]


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


# --- nothing is lost, everything is bounded


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["push", "take", "finish", "cancel", "forget"]),
            st.integers(0, 3),
            st.integers(0, 5),
            st.integers(0, 2),
            st.sampled_from([0, 40]),
        ),
        max_size=120,
    )
)
@relaxed
def test_whatever_happens_the_books_are_right(steps: list[tuple[str, int, int, int, int]]) -> None:
    """Jobs with a share and without, of several connections, begun or not, in any order."""
    queue = WorkQueue()
    held: list[Job] = []
    begun: dict[PeerId, Job] = {}
    for what, peer, request_id, route, num_bytes in steps:
        match what:
            case "push":
                one = job(peer, request_id, num_bytes, ROUTES[route])
                assert queue.push(one)
                held.append(one)
            case "take":
                following = queue.take(nobody_is_full)
                assert (following is None) == (not held)
                if following is not None:
                    queue.charge(following.peer_id, 0.001)
                    begun[following.peer_id] = following
            case "finish" if PEERS[peer] in begun:
                held.remove(begun[PEERS[peer]])
                queue.finish(begun.pop(PEERS[peer]))
            case "cancel":
                queue.cancel(PEERS[peer], request_id)
                held = [one for one in held if (one.peer_id, one.request_id) != (PEERS[peer], request_id)]
            case "forget":
                queue.forget(PEERS[peer])
                held = [one for one in held if one.peer_id != PEERS[peer]]
        begun = {peer_id: one for peer_id, one in begun.items() if one in held}
        assert len(queue) == len(held) - len(begun)
        assert queue._num_bytes == sum(one.num_bytes for one in held)
        assert queue._begun_bytes == sum(one.result_bytes for one in begun.values())
        assert set(queue._lines) == {one.peer_id for one in held}
        for peer_id, line in queue._lines.items():
            assert sum(line.num_bytes.values()) == sum(one.num_bytes for one in held if one.peer_id == peer_id)


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), st.none()), max_size=80))
@relaxed
def test_no_job_is_lost_or_served_twice(steps: list[tuple[int, int, bool] | None]) -> None:
    queue = WorkQueue()
    model: dict[int, list[int]] = {peer: [] for peer in range(4)}
    for step in steps:
        if step is None:
            following = served(queue)
            if following is None:
                assert not any(model.values())
            else:
                assert model[following[0]].pop(0) == following[1]
            continue
        peer, request_id, cancel = step
        if cancel:
            queue.cancel(PEERS[peer], request_id)
            model[peer] = [known for known in model[peer] if known != request_id]
        else:
            assert queue.push(job(peer, request_id, num_bytes=4))
            model[peer].append(request_id)
        assert len(queue) == sum(map(len, model.values()))
    for peer, request_id in all_served(queue):
        assert model[peer].pop(0) == request_id
    assert not any(model.values())
    assert len(queue) == queue._num_bytes == queue._begun_bytes == 0
    assert not queue._lines


def test_what_has_begun_can_be_cancelled_and_ends_there() -> None:
    ended: list[str] = []

    def parts(request: Any) -> Generator[None, None, Answer]:
        try:
            yield
            yield
            return DONE
        finally:
            ended.append("closed")

    queue = WorkQueue()
    assert queue.push(job(0, 5, num_bytes=400)) and queue.push(job(0, 6, num_bytes=400))
    begun = queue.take(nobody_is_full)
    assert begun is not None and begun.advance(parts) is None and len(queue) == 1
    queue.cancel(PEERS[1], 5)
    queue.cancel(PEERS[0], 7)
    assert not ended
    queue.cancel(PEERS[0], 5)
    assert ended == ["closed"]
    assert all_served(queue) == [(0, 6)]
    assert queue._num_bytes == queue._begun_bytes == 0


def test_a_job_gives_its_answer_with_its_last_part() -> None:
    def parts(request: Any) -> Generator[None, None, Answer]:
        yield
        return DONE

    one = job(0, 1)
    assert one.advance(parts) is None
    assert one.advance(parts) is DONE


def test_whoever_is_kept_out_leaves_nothing() -> None:
    queue = WorkQueue()
    for index in range(6):
        assert queue.push(job(0, index % 4, num_bytes=40, route=ROUTES[index % 3])) and queue.push(job(1, index))
    assert queue.take(nobody_is_full) is not None
    queue.forget(PEERS[0])
    queue.forget(PEERS[2])
    assert {peer for peer, _ in all_served(queue)} == {1}
    assert queue._num_bytes == queue._begun_bytes == len(queue) == 0


def test_a_peer_may_have_so_many_jobs_waiting() -> None:
    queue = WorkQueue()
    assert all(queue.push(job(0, index, route=ROUTES[index % 2])) for index in range(MAX_JOBS_A_PEER))
    assert not queue.push(job(0, 1000, route=ROUTES[2]))
    assert queue.push(job(1, 0))
    assert len(queue) == MAX_JOBS_A_PEER + 1
    queue.cancel(PEERS[0], 5)
    assert queue.push(job(0, 1001, route=ROUTES[2]))
    assert not queue.push(job(0, 1002, route=ROUTES[2]))


def test_so_many_peers_may_wait() -> None:
    queue = WorkQueue()

    def of(index: int) -> Job:
        return Job(PeerId(str(index)), 1, Linear(BINDING, seed=SEED), None, None)

    assert all(queue.push(of(index)) for index in range(MAX_PEERS))
    assert not queue.push(of(MAX_PEERS))
    following = queue.take(nobody_is_full)
    assert following is not None
    assert not queue.push(of(MAX_PEERS)), "what has begun waits, too"
    queue.finish(following)
    assert queue.push(of(MAX_PEERS))


@pytest.mark.parametrize("release", [lambda queue: served(queue), lambda queue: queue.cancel(PEERS[0], 1)])
def test_bytes_are_bounded_and_come_back(release: Callable[[WorkQueue], object], monkeypatch: Any) -> None:
    monkeypatch.setattr(work_queue, "MAX_BYTES_A_ROUTE", 800)
    monkeypatch.setattr(work_queue, "MAX_BYTES_A_PEER", 1200)
    monkeypatch.setattr(work_queue, "MAX_BYTES", 1600)
    queue = WorkQueue()
    assert queue.push(job(0, 1, 400)) and queue.push(job(0, 2, 400))
    assert not queue.push(job(0, 3, 400)), "of a connection"
    assert queue.push(job(0, 4, 400, route=b"two"))
    assert not queue.push(job(0, 5, 400, route=b"three")), "of a peer"
    assert queue.push(job(1, 1, 400))
    assert not queue.push(job(2, 1, 400)), "of all"
    assert queue.push(job(2, 2))
    queue.cancel(PEERS[2], 2)
    release(queue)
    assert queue.push(job(2, 3, 400))
    assert len(queue) == 4
    assert len(all_served(queue)) == 4
    assert queue.push(job(0, 1, 400))


def test_half_computed_results_are_bounded_and_small_requests_begin_all_the_same(monkeypatch: Any) -> None:
    large = {"row_end": 512, "tile_end": 2}  # 2 MiB
    monkeypatch.setattr(work_queue, "MAX_BEGUN_BYTES", 5 << 20)
    queue = WorkQueue()
    for peer in range(3):
        assert queue.push(job(peer, 1, **large))
    begun = [queue.take(nobody_is_full), queue.take(nobody_is_full)]
    for each in begun:
        assert each is not None
        queue.charge(each.peer_id, 0.001)
    assert queue.push(job(3, 1))
    assert served(queue) == (3, 1)
    for _ in range(4):
        following = queue.take(nobody_is_full)
        assert following in begun and following is not None, "the third waits until one of two is finished"
        queue.charge(following.peer_id, 0.001)
    assert begun[0] is not None
    queue.finish(begun[0])
    third = queue.take(nobody_is_full)
    assert third is not None and third not in begun


def test_who_cannot_be_served_is_nobody_to_wait_for() -> None:
    """A request whose connection takes no answers must not count as one that is about to be served."""
    queue = WorkQueue()
    assert queue.push(job(0, 1, route=ROUTES[0]))
    assert queue.has_single(lambda path: False)
    assert not queue.has_single(lambda path: True)
    assert queue.next_start_s(lambda path: True) == math.inf


def test_somebody_with_unopened_messages_does_not_ask_for_one_thing() -> None:
    queue = WorkQueue()
    assert queue.push(job(0, 1))
    queue.unopened = lambda peer_id: 1
    assert queue.has_single(nobody_is_full)
    queue.unopened = lambda peer_id: 2
    assert not queue.has_single(nobody_is_full)
    taken = queue.take(nobody_is_full)
    assert taken is not None and not taken.is_single


def test_single_requests_count_less_than_those_of_who_asks_for_more() -> None:
    """One peer asks for one thing after the other, another always has some waiting: the first is served at once."""
    queue = WorkQueue()
    for index in range(3):
        assert queue.push(job(1, index))
    for index in range(100):
        assert queue.push(job(0, index))
        for expected in (0, 1):
            taken = queue.take(nobody_is_full)
            assert taken is not None and taken.peer_id == PEERS[expected]
            queue.charge(taken.peer_id, 0.003 if expected == 0 else 0.001, taken)
            queue.finish(taken)
        assert queue.push(job(1, 3 + index))


def test_long_single_requests_have_no_advantage() -> None:
    queue = WorkQueue()
    long = job(0, 1)
    long.is_long = True
    assert queue.push(long)
    taken = queue.take(nobody_is_full)
    assert taken is long and not taken.is_single
