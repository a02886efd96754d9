"""The part of the data plane that gives blobs away. It lives in the data plane's thread and owns no socket.

Only the reading is done elsewhere: `collect` hands over what the disk reader has read since.
"""

from __future__ import annotations

import queue
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic

from msgspec import Struct

from node.serving.disk_reader import DiskReader, Fetched, FindBlob, ReadTask
from protocol.identity import PeerId
from protocol.limits import PIECE_BYTES, SLICE_BYTES
from protocol.message import ErrorCode, ErrorReply, Message
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice
from protocol.transfer.outline import Outline
from protocol.transfer.serve import PieceJob, Serving

MAX_READ_AHEAD = 4
"""Most pieces that are being read or wait to be sent; each takes one MiB of memory."""
MAX_CONNECTIONS_A_PEER = 4
"""Most connections of a peer with pieces that wait: opening more gives it no larger share."""
MAX_KNOWN_A_PEER = 16
"""Most connections of one peer whose credit is remembered: a peer that opens more loses its own credit, not that of
others."""
MAX_KNOWN = 1024
"""The same for all peers together."""
MAX_OPEN_OUTLINES = 32
"""Most outlines that one connection may wait for."""


class Reply(Struct, frozen=True):
    """A message for one connection."""

    route: bytes
    message_id: int
    message: Message


class _OutlineTag(Struct, frozen=True):
    route: bytes
    message_id: int


class BlobService:
    """Answers questions for blobs.

    Args:
        find_blob: where a blob lies; called from both threads.
        wake: makes the data plane's thread call `collect` soon; called from the disk reader's thread.
    """

    def __init__(self, find_blob: FindBlob, wake: Callable[[], None]) -> None:
        self._fetched: queue.SimpleQueue[Fetched] = queue.SimpleQueue()
        self.wake = wake
        self.disk_reader = DiskReader(find_blob, self._brought)
        self._serving: Serving[bytes] = Serving()
        self._owners: dict[bytes, PeerId] = {}
        """Of each connection that is known, the oldest first."""
        self._ready: deque[Reply] = deque()
        self._reading = 0
        self._outlining: Counter[bytes] = Counter()
        """Outlines that are being made, by connection."""
        self.sent_bytes = 0

    def start(self) -> None:
        self.disk_reader.start()

    def stop(self) -> None:
        self.disk_reader.stop()

    def computed(self) -> None:
        """A chunk was computed: pieces step back for a while."""
        self._serving.computed(monotonic())

    def handle(self, peer_id: PeerId, route: bytes, message_id: int, message: Message) -> ErrorReply | None:
        """A message from a peer; returns an answer where one can be given at once."""
        match message:
            case Credit(total_bytes):
                self._know(peer_id, route)
                self._serving.credit(route, total_bytes)
            case BlobAsk(sha256) | PieceAsk(sha256, _) if self.disk_reader.find_blob(sha256) is None:
                return ErrorReply(ErrorCode.NOT_FOUND, "this blob is not held here")
            case BlobAsk() if self._outlining[route] >= MAX_OPEN_OUTLINES:
                return ErrorReply(ErrorCode.EXHAUSTED, "too many outlines wait here")
            case BlobAsk(sha256):
                self._outlining[route] += 1
                self.disk_reader.send(ReadTask(sha256, None, _OutlineTag(route, message_id)))
            case PieceAsk(sha256, index):
                return self._queue(peer_id, route, message_id, sha256, index)
        return None

    def cancel(self, route: bytes, message_id: int) -> None:
        """A piece is not wanted any more."""
        self._serving.cancel(route, message_id)

    def gone(self, route: bytes) -> None:
        """A connection is gone."""
        self._serving.gone(route)
        self._owners.pop(route, None)
        self._ready = deque(reply for reply in self._ready if reply.route != route)  # a part of a piece is of no use

    def collect(self) -> Reply | None:
        """What can be sent now, a slice at most: a chunk waits no longer than that. Has the next pieces read."""
        if not self._ready and not self._fetched.empty():
            self._ready.extend(self._replies(self._fetched.get()))
        while self._reading < MAX_READ_AHEAD and (job := self._serving.next(monotonic())) is not None:
            self._reading += 1
            self.disk_reader.send(ReadTask(job.sha256, job.index, job))
        return self._ready.popleft() if self._ready else None

    def wait_s(self) -> float | None:
        """When `collect` should be called again; None while only a message or a wake-up can give it something."""
        if self._ready or not self._fetched.empty():
            return 0.0
        return None if self._reading >= MAX_READ_AHEAD else self._serving.wait_s(monotonic())

    def is_idle(self) -> bool:
        """Whether nothing is to be sent, or read for that."""
        return not self._reading and not self._outlining.total() and self.wait_s() is None

    def _queue(self, peer_id: PeerId, route: bytes, message_id: int, sha256: bytes, index: int) -> ErrorReply | None:
        place = self.disk_reader.find_blob(sha256)
        num_bytes = 0 if place is None else min(PIECE_BYTES, place.num_bytes - index * PIECE_BYTES)
        if num_bytes <= 0:
            return ErrorReply(ErrorCode.INVALID, "the blob has fewer pieces")
        self._know(peer_id, route)
        waiting = [known for known in self._serving.waiting if self._owners.get(known) == peer_id]
        job = PieceJob(route, message_id, sha256, index, num_bytes)
        if (route not in waiting and len(waiting) >= MAX_CONNECTIONS_A_PEER) or not self._serving.ask(job):
            return ErrorReply(ErrorCode.EXHAUSTED, "too many pieces wait here")
        return None

    def _know(self, peer_id: PeerId, route: bytes) -> None:
        """Remember a connection. Nobody says when one is gone, so the oldest is forgotten where there are too
        many."""
        if route in self._owners:
            return
        of_peer = [known for known, owner in self._owners.items() if owner == peer_id]
        if len(of_peer) >= MAX_KNOWN_A_PEER:
            self.gone(of_peer[0])
        elif len(self._owners) >= MAX_KNOWN:
            self.gone(next(iter(self._owners)))
        self._owners[route] = peer_id

    def _brought(self, fetched: Fetched) -> None:
        self._fetched.put(fetched)
        self.wake()

    def _replies(self, fetched: Fetched) -> list[Reply]:
        task, found = fetched.task, fetched.found
        tag = task.tag
        assert isinstance(tag, _OutlineTag | PieceJob)
        if isinstance(tag, PieceJob):
            self._reading -= 1
        else:
            self._outlining -= Counter([tag.route])
        if isinstance(found, Outline):
            return [Reply(tag.route, tag.message_id, BlobOutline(task.sha256, found))]
        if found is None:
            refusal = ErrorReply(ErrorCode.UNAVAILABLE, "the blob cannot be read here")
            return [Reply(tag.route, tag.message_id, refusal)]
        self.sent_bytes += len(found)
        view = memoryview(found)
        starts = range(0, len(found), SLICE_BYTES)
        return [
            Reply(tag.route, tag.message_id, PieceSlice(start, view[start : start + SLICE_BYTES])) for start in starts
        ]
