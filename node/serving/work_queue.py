"""Requests that wait for this node's worker: bounded, fair between peers by the time they take, cancellable.

A request that has begun stays at the head of its peer's line until it is finished, so that another peer's may be
computed between two of its parts.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from msgspec import Struct, field

from node.serving.turns import Turns
from node.serving.worker import Answer
from protocol.identity import PeerId
from protocol.work import WorkRequest

MAX_JOBS_A_PEER = 512
MAX_JOBS_A_ROUTE = 256
"""Most requests of one connection, so that a session that reads nothing leaves room for its peer's others."""
MAX_PEERS = 256
MAX_BYTES_A_PEER = 64 << 20
"""Most bytes of shares of one peer that wait: eight chunks of the largest size."""
MAX_BYTES_A_ROUTE = 32 << 20
MAX_BYTES = 512 << 20
"""The same for all peers together."""
MAX_BEGUN_BYTES = 64 << 20
"""Most bytes of half-computed results, of all peers together: eight of the largest size."""
SINGLE_REQUESTS = 2
"""A peer with no more requests than this asks for one thing at a time: a pass sends a lane one chunk of a layer, or
two."""
SINGLE_WEIGHT = 4.0
"""The time of a peer that asks for one short thing after the other counts so many times less: it needs little, and
others always have more to do."""
SMALL_RESULT_BYTES = 256 << 10
"""A request with a smaller result may always begin: one for each peer takes at most as much memory again."""

Route = bytes | None
Path = tuple[PeerId, Route]
"""A peer and the connection it dialled; None for the connection that this node dialled to serve it."""
AllParts = Generator[None, None, list[Answer]]
"""A computation of requests: each step is one part, all answers come with the last."""
Begin = Callable[[Sequence[WorkRequest]], AllParts]
IsFull = Callable[[Path], bool]
"""Tells whether a path gets no further results because earlier ones are unread."""


class Job(Struct, eq=False):
    """One request and where its answer goes."""

    peer_id: PeerId
    request_id: int
    request: WorkRequest
    socket: Any
    route: Route
    parts: AllParts | None = None
    """Its computation, from when it has begun."""
    company: tuple[Job, ...] = ()
    """Jobs of other peers that are computed with it; all of them run until it is finished."""
    owed_s: float = 0.0
    """Time that reading it took. It is charged with the first part, so that no peer pays before it is served."""
    is_long: bool = False
    """Whether it is expected to take longer than a short part."""
    is_single: bool = False
    """Whether it was short, and the only request of its peer when its turn came."""
    running: bool = False
    """Whether another thread computes a part of it now."""
    answered: bool = False
    """Whether it was answered at once and never waited."""
    cancelled: bool = False
    """Whether it is to be finished without an answer once that part is computed."""

    @property
    def path(self) -> Path:
        return self.peer_id, self.route

    @property
    def num_bytes(self) -> int:
        """Memory that it holds while it waits."""
        return self.request.num_bytes

    @property
    def result_bytes(self) -> int:
        """Memory that its result takes, at most."""
        return self.request.result_bytes

    @property
    def members(self) -> tuple[Job, ...]:
        """It, and those that are computed with it."""
        return self, *self.company

    def advance(self, begin: Begin) -> list[Answer] | None:
        """Compute one part more; the answers of its members where that was the last one."""
        if self.parts is None:
            self.parts = begin([member.request for member in self.members])
        try:
            next(self.parts)
        except StopIteration as finished:
            answers: list[Answer] = finished.value
            return answers
        return None


class _Line(Struct):
    """What waits of one peer."""

    begun: Job | None = None
    routes: OrderedDict[Route, deque[Job]] = field(default_factory=OrderedDict)
    """By connection, the one whose turn is next first; none is empty."""
    count: int = 0
    num_bytes: dict[Route, int] = field(default_factory=dict)
    """Of all jobs, the one that has begun included."""

    @property
    def is_empty(self) -> bool:
        return self.begun is None and not self.routes

    def has_room(self, job: Job) -> bool:
        of_route = len(self.routes.get(job.route, ()))
        if self.count >= MAX_JOBS_A_PEER or of_route >= MAX_JOBS_A_ROUTE:
            return False
        if self.num_bytes.get(job.route, 0) + job.num_bytes > MAX_BYTES_A_ROUTE:
            return False
        return sum(self.num_bytes.values()) + job.num_bytes <= MAX_BYTES_A_PEER

    def push(self, job: Job) -> None:
        self.routes.setdefault(job.route, deque()).append(job)
        self.count += 1
        self.num_bytes[job.route] = self.num_bytes.get(job.route, 0) + job.num_bytes

    def first(self, is_full: IsFull, may_begin: Callable[[Job], bool]) -> Job | None:
        """What is computed next of this peer: what has begun, else the first of a connection that takes answers."""
        if self.begun is not None:
            return self.begun
        heads = (jobs[0] for jobs in self.routes.values())
        return next((job for job in heads if not is_full(job.path) and may_begin(job)), None)

    def begin(self, job: Job) -> None:
        """From now on it is the job that this peer has begun; its connection goes to the end of the line."""
        self.begun = job
        jobs = self.routes.pop(job.route)
        jobs.popleft()
        self.count -= 1
        if jobs:
            self.routes[job.route] = jobs

    def release(self, job: Job) -> None:
        """Give its memory back."""
        left = self.num_bytes.pop(job.route, 0) - job.num_bytes
        if left:
            self.num_bytes[job.route] = left

    def drop(self, request_id: int) -> Iterator[Job]:
        """Take out what waits under this id."""
        for route in list(self.routes):
            jobs = self.routes[route]
            dropped = [job for job in jobs if job.request_id == request_id]
            if not dropped:
                continue
            kept = deque(job for job in jobs if job.request_id != request_id)
            self.count -= len(dropped)
            if kept:
                self.routes[route] = kept
            else:
                del self.routes[route]
            yield from dropped


class WorkQueue:
    """Peers in turn by the time they used, connections of a peer in turn, first in first out within one.

    Used by one thread; `len` from any.
    """

    def __init__(self, may_take: Callable[[Job], bool] = lambda job: not job.running) -> None:
        self._may_take = may_take
        self.unopened: Callable[[PeerId], int] = lambda peer_id: 0
        """How many messages of a peer wait that are not opened yet."""
        self._lines: OrderedDict[PeerId, _Line] = OrderedDict()
        """Every peer that waits; of two at the same place, the one served longest ago comes first."""
        self._turns = Turns()
        self._count = 0
        self._num_bytes = 0
        self._begun_bytes = 0

    def __len__(self) -> int:
        """Requests that have not begun."""
        return self._count

    @property
    def is_empty(self) -> bool:
        """Whether no request waits or has begun."""
        return not self._lines

    def serve_only(self, peer_id: PeerId) -> None:
        """A request is computed at once, because nothing else waits: it is the turn of its peer."""
        self._turns.next((peer_id,))

    def push(self, job: Job) -> bool:
        """Whether there was room."""
        line = self._lines.get(job.peer_id)
        if line is None:
            if len(self._lines) >= MAX_PEERS:
                return False
            line = _Line()
        if self._num_bytes + job.num_bytes > MAX_BYTES or not line.has_room(job):
            return False
        if job.peer_id not in self._lines:
            self._lines[job.peer_id] = line
            self._lines.move_to_end(job.peer_id, last=False)  # it has waited for its turn longer than anybody here
        line.push(job)
        self._count += 1
        self._num_bytes += job.num_bytes
        return True

    def start_s(self, peer_id: PeerId) -> float:
        """Where a peer stands by the time that it used; the lowest is served next."""
        return self._turns.start_s(peer_id)

    def next_start_s(self, is_full: IsFull) -> float:
        """The place of the peer whose job `take` would return; infinite where it would return none."""
        ready = (peer_id for peer_id, line in self._lines.items() if self._first(line, is_full) is not None)
        return min(map(self._turns.start_s, ready), default=math.inf)

    def waits_on(self, path: Path) -> bool:
        """Whether a connection has a request that waits and has not begun."""
        line = self._lines.get(path[0])
        return line is not None and path[1] in line.routes

    def is_idle(self, peer_id: PeerId) -> bool:
        """Whether no request of a peer waits or has begun."""
        return peer_id not in self._lines

    def has_single(self, is_full: IsFull) -> bool:
        """Whether somebody waits who asks for one thing at a time, and can be served now."""
        return any(
            self._is_single(peer_id, line) and self._first(line, is_full) is not None
            for peer_id, line in self._lines.items()
        )

    def _is_single(self, peer_id: PeerId, line: _Line) -> bool:
        return line.begun is None and line.count + self.unopened(peer_id) <= SINGLE_REQUESTS

    def ready(self, is_full: IsFull) -> bool:
        """Whether `take` gives something."""
        return any(self._first(line, is_full) is not None for line in self._lines.values())

    def take(self, is_full: IsFull) -> Job | None:
        """The job of which a part is computed next. It stays here until `finish`."""
        firsts = {peer_id: self._first(line, is_full) for peer_id, line in self._lines.items()}
        peer_id = self._turns.next(peer_id for peer_id, job in firsts.items() if job is not None)
        job = None if peer_id is None else firsts[peer_id]
        if job is None or peer_id is None:
            return None
        self._lines.move_to_end(peer_id)
        line = self._lines[peer_id]
        if line.begun is None:
            job.is_single = self._is_single(peer_id, line) and not job.is_long
            self._begin(line, job)
        return job

    def join(self, job: Job, fits: Callable[[Job, Job], bool], is_full: IsFull) -> None:
        """Let jobs of other peers begin with one that was taken and is not computed yet, where they fit to it."""
        for line in self._lines.values():
            other = self._first(line, is_full) if line.begun is None else None
            if other is not None and other.parts is None and fits(job, other):
                self._begin(line, other)
                other.running = True
                job.company += (other,)

    def _begin(self, line: _Line, job: Job) -> None:
        line.begin(job)
        self._count -= 1
        self._begun_bytes += job.result_bytes

    def charge(self, peer_id: PeerId, seconds: float, is_single: bool = False) -> None:
        """A peer's request or message has taken this much of the thread's time.

        Args:
            is_single: whether it was a short request, and the only one of its peer.
        """
        self._turns.charge(peer_id, seconds / SINGLE_WEIGHT if is_single else seconds)

    def finish(self, job: Job) -> None:
        """Nothing more is computed of a job that has begun."""
        line = self._lines[job.peer_id]
        assert line.begun is job, "it has begun"
        line.begun = None
        if job.parts is not None:
            job.parts.close()
        self._begun_bytes -= job.result_bytes
        self._release(line, job)

    def cancel(self, peer_id: PeerId, request_id: int) -> None:
        """Drop a request of this peer, begun or not; nothing happens if it is not there."""
        line = self._lines.get(peer_id)
        if line is None:
            return
        for job in line.drop(request_id):
            self._count -= 1
            self._release(line, job)
        if line.begun is not None and line.begun.request_id == request_id:
            self._end(line.begun)

    def forget(self, peer_id: PeerId) -> None:
        """Drop all requests of a peer that is not served any more."""
        line = self._lines.get(peer_id)
        if line is None:
            return
        for request_id in {job.request_id for jobs in line.routes.values() for job in jobs}:
            self.cancel(peer_id, request_id)
        if line.begun is not None:
            self._end(line.begun)

    def _end(self, begun: Job) -> None:
        if begun.running or begun.company:
            begun.cancelled = True
        else:
            self.finish(begun)

    def _first(self, line: _Line, is_full: IsFull) -> Job | None:
        job = line.first(is_full, self._may_begin)
        return None if job is None or not self._may_take(job) else job

    def _may_begin(self, job: Job) -> bool:
        needed = job.result_bytes
        return needed <= SMALL_RESULT_BYTES or self._begun_bytes + needed <= MAX_BEGUN_BYTES

    def _release(self, line: _Line, job: Job) -> None:
        line.release(job)
        self._num_bytes -= job.num_bytes
        if line.is_empty:
            self._lines.pop(job.peer_id, None)  # several may have had one id
