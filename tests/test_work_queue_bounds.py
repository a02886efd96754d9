"""The queue of work is bounded in every direction, and loses nothing."""

import math
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued_jobs import BINDING, DONE, PEERS, ROUTES, SEED, all_served, job, nobody_is_full, relaxed, served

from node.serving import work_queue
from node.serving.work_queue import MAX_JOBS_A_PEER, MAX_PEERS, Job, WorkQueue
from node.serving.worker import Answer
from protocol.identity import PeerId
from protocol.linear.messages import Linear

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

    def parts(requests: Any) -> Generator[None, None, list[Answer]]:
        try:
            yield
            yield
            return [DONE]
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
    def parts(requests: Any) -> Generator[None, None, list[Answer]]:
        yield
        return [DONE]

    one = job(0, 1)
    assert one.advance(parts) is None
    assert one.advance(parts) == [DONE]


def together(queue: WorkQueue) -> Job:
    """What is taken next, with all that is first in the lines of other peers."""
    leader = queue.take(nobody_is_full)
    assert leader is not None
    queue.join(leader, lambda job, other: True, nobody_is_full)
    return leader


def test_jobs_of_several_peers_begin_together_and_one_of_each_peer() -> None:
    queue = WorkQueue()
    for peer in (0, 1, 2):
        assert queue.push(job(peer, 1, num_bytes=40)) and queue.push(job(peer, 2, num_bytes=40))
    leader = together(queue)
    others = sorted(member.peer_id for member in leader.company)
    assert len(others) == 2 and {leader.peer_id, *others} == set(PEERS[:3])
    assert len(queue) == 3 and queue._begun_bytes == sum(member.result_bytes for member in leader.members)
    assert queue.take(nobody_is_full) is leader, "its next part; the others run with it"
    for member in leader.members:
        queue.finish(member)
    assert queue._begun_bytes == 0 and len(all_served(queue)) == 3 and not queue._num_bytes


def test_jobs_that_do_not_fit_stay_where_they_are() -> None:
    queue = WorkQueue()
    for peer in (0, 1, 2):
        assert queue.push(job(peer, 1))
    leader = queue.take(nobody_is_full)
    assert leader is not None
    queue.join(leader, lambda job, other: other.peer_id == PEERS[1], nobody_is_full)
    assert len(leader.company) <= 1 and all(member.peer_id == PEERS[1] for member in leader.company)
    queue.join(leader, lambda job, other: True, lambda path: True)
    assert len(leader.company) <= 1, "who cannot take an answer begins nothing"


@pytest.mark.parametrize(
    "cancel", [lambda queue, peer: queue.cancel(peer, 1), lambda queue, peer: queue.forget(peer)]
)
def test_who_leaves_a_company_ends_it_for_nobody_else(cancel: Callable[[WorkQueue, PeerId], None]) -> None:
    ended: list[str] = []

    def parts(requests: Any) -> Generator[None, None, list[Answer]]:
        try:
            yield
            return [DONE] * len(requests)
        finally:
            ended.append("closed")

    queue = WorkQueue()
    for peer in (0, 1, 2):
        assert queue.push(job(peer, 1, num_bytes=40))
    leader = together(queue)
    assert leader.advance(parts) is None
    cancel(queue, leader.peer_id)
    cancel(queue, leader.company[0].peer_id)
    assert not ended and [member.cancelled for member in leader.members] == [True, True, False]
    assert queue.take(nobody_is_full) is leader and leader.advance(parts) == [DONE] * 3
    for member in leader.members:
        queue.finish(member)
    assert queue.is_empty and queue._num_bytes == queue._begun_bytes == 0


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
            queue.charge(taken.peer_id, 0.003 if expected == 0 else 0.001, taken.is_single)
            queue.finish(taken)
        assert queue.push(job(1, 3 + index))


def test_long_single_requests_have_no_advantage() -> None:
    queue = WorkQueue()
    long = job(0, 1)
    long.is_long = True
    assert queue.push(long)
    taken = queue.take(nobody_is_full)
    assert taken is long and not taken.is_single
