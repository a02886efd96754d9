"""Running and ended transfers, as interfaces show them."""

from __future__ import annotations

import itertools
import threading
import time
from enum import Enum
from typing import Any, ClassVar

from msgspec import Struct, field

from protocol.discreet import Discreet

RATE_WINDOW_S = 1.0
KEPT_JOBS = 32
"""So many ended jobs are still shown."""

_numbers = itertools.count(1)


class JobState(Enum):
    """The state of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(Discreet, Struct):
    """One fetch. Its thread writes, any thread reads."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("stop", "ended")
    kind: str
    """`pull` for a whole model, `thin` for one whose weights peers keep, or `units` for layers to serve."""
    model: str
    id: str = field(default_factory=lambda: f"t{next(_numbers)}")
    done_bytes: int = 0
    total_bytes: int = 0
    fetched_bytes: int = 0
    """Bytes that this job has fetched, without those that were already here."""
    sources: int = 0
    rate_bytes_s: float = 0.0
    state: JobState = JobState.RUNNING
    error: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _since: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))

    def advance(self, num_bytes: int, fetched: bool = True) -> None:
        """Add bytes that are here now."""
        self.done_bytes += num_bytes
        self.fetched_bytes += num_bytes if fetched else 0
        self.measure()

    def measure(self) -> None:
        """Update the rate."""
        now = time.monotonic()
        since, before = self._since
        if now - since >= RATE_WINDOW_S:
            self.rate_bytes_s = (self.fetched_bytes - before) / (now - since)
            self._since = (now, self.fetched_bytes)

    def end(self, state: JobState, error: str | None = None) -> None:
        """End the job."""
        self.error, self.state, self.rate_bytes_s = error, state, 0.0
        self.ended.set()

    def as_json(self) -> dict[str, Any]:
        """A TRANSFER of the gateway's state."""
        return {
            "id": self.id,
            "kind": self.kind,
            "model": self.model,
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "fetched_bytes": self.fetched_bytes,
            "rate_bytes_s": round(self.rate_bytes_s),
            "sources": self.sources,
            "state": self.state.value,
            "error": self.error,
        }


class Jobs:
    """Every job of a node. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> Job:
        """Add a job; the oldest ended ones are dropped."""
        with self._lock:
            ended = [known for known in self._jobs.values() if known.state is not JobState.RUNNING]
            for known in ended[: max(0, len(ended) - KEPT_JOBS)]:
                del self._jobs[known.id]
            self._jobs[job.id] = job
        return job

    def find(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

    def running(self, kind: str, model: str) -> Job | None:
        """A job of this kind for this model that has not ended."""
        with self._lock:
            alike = (job for job in self._jobs.values() if (job.kind, job.model) == (kind, model))
            return next((job for job in alike if job.state is JobState.RUNNING), None)

    def all(self) -> list[Job]:
        """All jobs in the order in which they began."""
        with self._lock:
            return list(self._jobs.values())

    def as_json(self) -> list[dict[str, Any]]:
        """The `transfers` of the gateway's state."""
        return [job.as_json() for job in self.all()]

    def stop_all(self) -> None:
        """Ask every job to end."""
        for job in self.all():
            job.stop.set()
