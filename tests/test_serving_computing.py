"""What a data plane computes for others: in which thread, with whom, and who is charged for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from types import SimpleNamespace

import pytest
from made_parts import KERNELS, identity, weights_of
from test_model_checkpoints import write_checkpoint
from test_serving_spans import ANNA, SIZE, caches_of, computed, opening, rows, step

from node.serving.computing import Computing
from node.serving.spans import Client
from node.serving.work_queue import Job
from node.serving.worker import Answer, LinearWorker
from node.store.library import Library
from node.store.stored import StoredModel
from protocol.spans.messages import SpanResult, SpanStep
from protocol.work import WorkRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("computing")
    return Library(root / "models").resolve(write_checkpoint(root / "made", {"num_hidden_layers": 3}))


def computing_with(
    worker: LinearWorker,
    replies: list[tuple[Job, Answer]],
    wake: Callable[[], None],
    is_shared: bool = False,
    is_free: bool = True,
) -> Computing:
    def reply(job: Job, answer: Answer) -> None:
        replies.append((job, answer))

    return Computing(worker, lambda path: False, lambda peer_id: is_shared, reply, wake, lambda: is_free)


def test_clients_who_ask_at_once_are_computed_together_and_charged_their_part(model: StoredModel) -> None:
    """The data plane's queue and threads, with steps through the same layers and one through others."""
    caches = caches_of(model)
    worker = LinearWorker(KERNELS, weights_of([]), spans=caches)
    asked: list[int] = []
    parts_of_all = worker.parts_of_all

    def counting(requests: Sequence[WorkRequest]) -> Generator[None, None, list[Answer]]:
        asked.append(len(requests))
        return parts_of_all(requests)

    worker.parts_of_all = counting  # type: ignore[method-assign]
    replies, woken = list[tuple[Job, Answer]](), threading.Semaphore(0)
    computing = computing_with(worker, replies, woken.release, is_shared=True)
    computing.start()
    owners = [identity(number).peer_id for number in range(1, 6)]
    opened = [opening(model, number, 0, 3 if number == 4 else 2) for number in range(5)]
    socket = SimpleNamespace(closed=False)
    for number, (owner, one) in enumerate(zip(owners, opened, strict=True)):
        caches.open(Client(owner), one)
        request = step(one, 0, rows(9 if number == 3 else 1, number))
        assert computing.push(Job(owner, number, request, socket, None))
    while not computing.is_idle:
        computing.step()
        assert woken.acquire(timeout=20)
        computing.collect()
    computing.stop()
    assert sorted(asked) == [1, 1, 3], "the long step and the one through other layers are alone"
    assert sorted(job.request_id for job, _ in replies) == list(range(5))
    for job, answer in replies:
        assert isinstance(answer, SpanResult) and isinstance(job.request, SpanStep)
        assert answer.answers(job.request.binding, SIZE)
    assert worker.answered == 5 and len(computing.work) == 0


@pytest.mark.parametrize(
    ("expected_s", "is_shared", "is_free", "at_once"),
    [
        (0.02, False, True, True),
        (0.02, True, True, False),
        (0.02, False, False, False),
        (0.002, False, False, True),
        (0.03, False, True, False),
    ],
)
def test_a_lone_step_is_computed_where_it_came_unless_others_may_ask_meanwhile(
    model: StoredModel,
    monkeypatch: pytest.MonkeyPatch,
    expected_s: float,
    is_shared: bool,
    is_free: bool,
    at_once: bool,
) -> None:
    never_late(monkeypatch)
    caches, opened, threads = caches_of(model), opening(model, 1), list[threading.Thread]()
    caches.open(Client(ANNA), opened)
    worker, parts_of_all = LinearWorker(KERNELS, weights_of([]), spans=caches), LinearWorker.parts_of_all

    def noted(requests: Sequence[WorkRequest]) -> Generator[None, None, list[Answer]]:
        threads.append(threading.current_thread())
        return parts_of_all(worker, requests)

    request, answers, woken = step(opened, 0, rows(1)), list[tuple[Job, Answer]](), threading.Event()
    worker.parts_of_all = noted  # type: ignore[method-assign]
    computed(caches, step(opened, 0, rows(1)))  # its layers are ready
    worker._macs_per_s = caches.macs(request) / expected_s
    computing = computing_with(worker, answers, woken.set, is_shared, is_free)
    computing.start()
    job = Job(ANNA, 1, request, SimpleNamespace(closed=False), None)
    assert computing.answer(job) and len(answers) == at_once
    if not at_once:
        computing.step()
        assert woken.wait(20)
        computing.collect()
    computing.stop()
    ((_job, answer),), (thread,) = answers, threads
    assert isinstance(answer, SpanResult) and answer.answers(request.binding, SIZE)
    assert (thread is threading.current_thread()) == at_once and job.answered == at_once


def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, no part of a step seems to take long."""
    monkeypatch.setattr("node.serving.spans.time", SimpleNamespace(perf_counter=lambda: 0.0))


def test_layers_are_not_made_ready_where_messages_are_read(
    model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That reads files, which takes as long as it takes."""
    never_late(monkeypatch)
    caches, opened, answers = caches_of(model), opening(model, 1), list[tuple[Job, Answer]]()
    caches.open(Client(ANNA), opened)
    worker, woken = LinearWorker(KERNELS, weights_of([]), spans=caches), threading.Event()
    computing = computing_with(worker, answers, woken.set)
    for number, is_ready in enumerate((False, True)):
        request = step(opened, number, rows(1), number + 1)
        assert caches.has_ready(request) == is_ready
        assert computing.answer(Job(ANNA, number, request, SimpleNamespace(closed=False), None))
        assert len(answers) == is_ready
        if not is_ready:
            assert len(computing.work) == 1
            computing.start()
            computing.step()
            assert woken.wait(20)
            computing.collect()
            answers.clear()
    computing.stop()
