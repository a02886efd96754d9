"""The thread that computes long requests for the data plane, one part at a time.

The data plane's own thread computes short requests and never a long one. So it sleeps whenever there is nothing to
read, and the system wakes it as soon as something comes, however much is asked of this node. It owns all sockets and
decides what is computed; this thread only computes what it is given.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from node.serving.work_queue import Begin, Job
from node.serving.worker import Answer

STOP_LIMIT_S = 1.0


class Finished(Struct, frozen=True):
    """A part that was computed."""

    job: Job
    answers: list[Answer] | None
    """None: more parts follow."""
    seconds: float


class BulkThread:
    """Computes a part when it is given one. All but the computing is used by one thread.

    Args:
        begin: makes the computation of requests.
        wake: called in this thread when `collect` has something.
    """

    def __init__(self, begin: Begin, wake: Callable[[], None]) -> None:
        self._begin, self._wake = begin, wake
        self._given: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()
        self._given_at: float | None = None
        self._thread = threading.Thread(target=self._main, name="bulk of the data plane", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the current part; where that takes long, do not wait for it."""
        if self._thread.is_alive():
            self._given.put(None)
            self._thread.join(STOP_LIMIT_S)

    @property
    def busy_s(self) -> float | None:
        """How long it has worked on the current part; None while it is free for one."""
        return None if self._given_at is None else time.monotonic() - self._given_at

    def give(self, job: Job) -> None:
        """Compute the next part of a job."""
        assert self._given_at is None, "one at a time"
        self._given_at, job.running = time.monotonic(), True
        self._given.put(job)

    def collect(self) -> Finished | None:
        """The part that was given last, once it is computed."""
        if self._given_at is None:
            return None
        try:
            finished = self._finished.get_nowait()
        except queue.Empty:
            return None
        self._given_at, finished.job.running = None, False
        return finished

    def _main(self) -> None:
        while (job := self._given.get()) is not None:
            started = time.perf_counter()
            answers = job.advance(self._begin)
            self._finished.put(Finished(job, answers, time.perf_counter() - started))
            del job
            self._wake()
