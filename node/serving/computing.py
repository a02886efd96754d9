"""What a data plane computes for others: which part comes next, and in which thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from node.serving.bulk import BulkThread
from node.serving.work_queue import IsFull, Job, WorkQueue
from node.serving.worker import ALONE_PART_S, BULK_PART_S, SHARED_PART_S, SHORT_S, Answer, LinearWorker
from protocol.identity import PeerId

STEP_S = 0.025
"""As ALONE_PART_S, for a step through layers: half of the shortest time after which a client computes a chunk itself
(SPEC.md section 9)."""
MOST_ROWS_TOGETHER = 32
"""Rows of requests that are computed together, at most: so nobody waits long for a first part with many others."""
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
        is_free: whether the data plane has nothing to send meanwhile.
    """

    def __init__(
        self,
        worker: LinearWorker,
        is_full: IsFull,
        is_shared: Callable[[PeerId], bool],
        reply: Callable[[Job, Answer], None],
        wake: Callable[[], None],
        is_free: Callable[[], bool],
    ) -> None:
        self._worker, self._is_full, self._is_shared, self._reply = worker, is_full, is_shared, reply
        self._is_free = is_free
        self.work = WorkQueue(self._may_take)
        self._bulk = BulkThread(worker.parts_of_all, wake)

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
        added, so that others are heard meanwhile. Returns whether there was room.

        A step through the layers of a span may take longer than other requests: it is for this device's owner, and
        two threads would wake each other in every token.
        """
        expected_s = self._worker.expected_s(job.request)
        if not self._worker.has_ready(job.request):
            return self.push(job)
        most_s = STEP_S if job.request.KEEPS_STATE and self._is_free() else ALONE_PART_S
        if expected_s > SHORT_S and (expected_s > most_s or self._is_shared(job.peer_id)):
            return self.push(job)
        self.work.serve_only(job.peer_id)
        self._worker.part_s = most_s
        answers = job.advance(self._worker.parts_of_all)
        if answers is None:
            return self.push(job)
        job.is_single, job.answered = expected_s <= SHORT_S, True
        self._reply(job, answers[0])
        return True

    def collect(self) -> None:
        """Take over what another thread has computed; that wakes this one when it is done."""
        if (finished := self._bulk.collect()) is not None:
            self._computed(finished.job, finished.answers, finished.seconds)

    def step(self, most_s: float = math.inf) -> None:
        """Compute one part for the peer that has used the least time; the answer leaves with the last part.

        Args:
            most_s: how long a part may be expected to take while others ask too.
        """
        job = self.work.take(self._is_full)
        if job is None:
            return
        alone_s = BULK_PART_S if job.is_long else ALONE_PART_S
        self._worker.part_s = min(most_s, SHARED_PART_S) if self._is_shared(job.peer_id) else alone_s
        if job.is_long:
            if job.parts is None:
                self.work.join(job, self._fits, self._is_full)
            self._bulk.give(job)
            return
        started = time.perf_counter()
        answers = job.advance(self._worker.parts_of_all)
        self._computed(job, answers, time.perf_counter() - started)

    def _fits(self, job: Job, other: Job) -> bool:
        """Whether a job may be computed with another, and those that are computed with that."""
        num_rows = sum(member.request.num_rows for member in (*job.members, other))
        return num_rows <= MOST_ROWS_TOGETHER and self._worker.together(job.request, other.request)

    def _computed(self, job: Job, answers: list[Answer] | None, seconds: float) -> None:
        """A part of a job took this long; where there are answers, it was the last part."""
        # Spans have long parts.
        most_s = math.inf if job.request.KEEPS_STATE else OVERLONG_PARTS * self._worker.part_s
        num_rows = sum(member.request.num_rows for member in job.members)
        for member in job.members:
            own_s = min(seconds, most_s) * member.request.num_rows / num_rows
            self.work.charge(member.peer_id, own_s + member.owed_s, member.is_single)
            member.owed_s = 0.0
        if answers is None and not all(member.cancelled for member in job.members):
            return
        for member in job.members:
            self.work.finish(member)
        for member, answer in zip(job.members, answers or (), strict=False):
            if not member.cancelled and not member.socket.closed:
                self._reply(member, answer)

    def _may_take(self, job: Job) -> bool:
        """Whether a part of it can be computed now: one long request at a time, short ones beside it."""
        return not job.running and not (job.is_long and self._bulk.busy_s is not None)
