"""What a data plane computes for others: which part comes next, and in which thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from node.serving.bulk import BulkThread
from node.serving.work_queue import IsFull, Job, WorkQueue
from node.serving.worker import ALONE_PART_S, SHARED_PART_S, SHORT_S, Answer, LinearWorker
from protocol.identity import PeerId

OVERLONG_PARTS = 4.0
"""A part is charged at most so many times its intended length: for the rest, the system gave the processor to
others."""


class Computing:
    """Requests that wait, and what is computed of them. Used by the data plane's thread.

    Args:
        is_full: whether a path gets no further results because earlier ones are unread.
        is_shared: whether others than this peer ask, too.
        reply: sends the answer of a job.
        wake: called in another thread when `collect` has something to do.
    """

    def __init__(
        self,
        worker: LinearWorker,
        is_full: IsFull,
        is_shared: Callable[[PeerId], bool],
        reply: Callable[[Job, Answer], None],
        wake: Callable[[], None],
    ) -> None:
        self._worker, self._is_full, self._is_shared, self._reply = worker, is_full, is_shared, reply
        self.work = WorkQueue(self._may_take)
        self._bulk = BulkThread(worker.parts, wake)

    def start(self) -> None:
        self._bulk.start()

    def stop(self) -> None:
        """End the thread of long requests, unless it takes long."""
        self._bulk.stop()

    @property
    def is_ready(self) -> bool:
        """Whether `step` would compute something."""
        return self.work.ready(self._is_full)

    @property
    def busy_s(self) -> float | None:
        """How long a part of a long request has been computed; None where none is."""
        return self._bulk.busy_s

    def push(self, job: Job) -> bool:
        """Add a request; returns whether there was room."""
        job.is_long = job.request.KEEPS_STATE or self._worker.expected_s(job.request) > SHORT_S
        return self.work.push(job)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        return self.work.is_empty and self._bulk.busy_s is None

    def answer(self, job: Job) -> bool:
        """Begin the only request that there is, in this thread, and answer it if it has one part. A longer one is
        added, so that others are heard meanwhile. Returns whether there was room."""
        expected_s = self._worker.expected_s(job.request)
        if expected_s > SHORT_S and (expected_s > ALONE_PART_S or self._is_shared(job.peer_id)):
            return self.push(job)
        self.work.serve_only(job.peer_id)
        self._worker.part_s = ALONE_PART_S
        answer = job.advance(self._worker.parts)
        if answer is None:
            return self.push(job)
        job.is_single, job.answered = expected_s <= SHORT_S, True
        self._reply(job, answer)
        return True

    def collect(self) -> None:
        """Take over what another thread has computed; that wakes this one when it is done."""
        if (finished := self._bulk.collect()) is not None:
            self._computed(finished.job, finished.answer, finished.seconds)

    def step(self) -> None:
        """Compute one part for the peer that has used the least time; the answer leaves with the last part."""
        job = self.work.take(self._is_full)
        if job is None:
            return
        self._worker.part_s = SHARED_PART_S if self._is_shared(job.peer_id) else ALONE_PART_S
        if job.is_long:
            self._bulk.give(job)
            return
        started = time.perf_counter()
        answer = job.advance(self._worker.parts)
        self._computed(job, answer, time.perf_counter() - started)

    def _computed(self, job: Job, answer: Answer | None, seconds: float) -> None:
        """A part of a job took this long; where there is an answer, it was the last part."""
        most_s = (
            math.inf if job.request.KEEPS_STATE else OVERLONG_PARTS * self._worker.part_s
        )  # spans have long parts
        self.work.charge(job.peer_id, min(seconds, most_s) + job.owed_s, job)
        job.owed_s = 0.0
        if answer is not None or job.cancelled:
            self.work.finish(job)
        if answer is not None and not job.cancelled and not job.socket.closed:
            self._reply(job, answer)

    def _may_take(self, job: Job) -> bool:
        """Whether a part of it can be computed now: one long request at a time, short ones beside it."""
        return not job.running and not (job.is_long and self._bulk.busy_s is not None)
