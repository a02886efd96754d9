"""Requests that wait for this node's worker: bounded, fair between peers, cancellable."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from protocol.identity import PeerId
from protocol.messages import Linear, TrustedLinear

MAX_JOBS_A_PEER = 512
MAX_PEERS = 256
MAX_BYTES_A_PEER = 64 << 20
"""Shares of one peer that wait, in bytes: eight chunks of the largest size."""
MAX_BYTES = 512 << 20
"""Shares of all peers that wait."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request and where its answer goes."""

    peer_id: PeerId
    request_id: int
    request: Linear | TrustedLinear
    socket: Any
    route: bytes | None

    @property
    def num_bytes(self) -> int:
        """Memory that it holds while it waits."""
        return self.request.num_bytes


class WorkQueue:
    """Round robin over peers, first in first out within one. Used by one thread; `len` from any."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[PeerId, deque[Job]] = OrderedDict()
        self._count = 0
        self._num_bytes = 0

    def __len__(self) -> int:
        return self._count

    def push(self, job: Job) -> bool:
        """Whether there was room."""
        jobs = self._waiting.get(job.peer_id)
        if jobs is None:
            if len(self._waiting) >= MAX_PEERS:
                return False
            jobs = self._waiting[job.peer_id] = deque()
        of_peer = sum(waiting.num_bytes for waiting in jobs)
        full = self._num_bytes + job.num_bytes > MAX_BYTES or of_peer + job.num_bytes > MAX_BYTES_A_PEER
        if full or len(jobs) >= MAX_JOBS_A_PEER:
            if not jobs:
                del self._waiting[job.peer_id]
            return False
        jobs.append(job)
        self._count += 1
        self._num_bytes += job.num_bytes
        return True

    def ready(self, but: Container[PeerId] = ()) -> bool:
        """Whether somebody's job waits, other than those named."""
        return any(peer_id not in but for peer_id in self._waiting)

    def pop(self, but: Container[PeerId] = ()) -> Job | None:
        """Next job of anybody but those named, or None; the peer it came from goes to the end of the line."""
        peer_id = next((peer_id for peer_id in self._waiting if peer_id not in but), None)
        if peer_id is None:
            return None
        jobs = self._waiting.pop(peer_id)
        job = jobs.popleft()
        if jobs:
            self._waiting[peer_id] = jobs
        self._count -= 1
        self._num_bytes -= job.num_bytes
        return job

    def cancel(self, peer_id: PeerId, request_id: int) -> None:
        """Drop a waiting request of this peer; nothing happens if it is not there."""
        jobs = self._waiting.get(peer_id, deque())
        kept = deque(job for job in jobs if job.request_id != request_id)
        self._count -= len(jobs) - len(kept)
        self._num_bytes -= sum(job.num_bytes for job in jobs) - sum(job.num_bytes for job in kept)
        if kept:
            self._waiting[peer_id] = kept
        else:
            self._waiting.pop(peer_id, None)
