"""Who waits for the answer to a request: a chunk for the product of its share, a batch of pads for its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from msgspec import Struct

from node.execution.chunk import ChunkEvent, ChunkRecord, ChunkState
from node.execution.pads.batch import PadBatch
from node.execution.peer import Request
from protocol.discreet import Discreet
from protocol.linear.field import Elements


class ShareOwner(Discreet, Struct, eq=False):
    """A chunk."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("move", "resend")
    subject: ChunkRecord
    move: Callable[[ChunkRecord, ChunkEvent], None]
    resend: Callable[[ChunkRecord, bool], None]
    """Sends the same share once more if that is allowed; True: the same peer may get it again."""

    def arrived(self, request: Request) -> bool:
        if not request.abandoned:
            self.move(self.subject, ChunkEvent.RECEIVE)
        return not request.abandoned

    def verified(self, request: Request, elements: Elements) -> None:
        if not request.abandoned:
            self.subject.result = elements[: self.subject.chunk.num_rows]
            self.move(self.subject, ChunkEvent.ACCEPT)

    def failed(self, request: Request, same_peer_again: bool = False) -> None:
        record = self.subject
        if request.abandoned or record.state not in (ChunkState.SENT, ChunkState.RECEIVED):
            return
        self.move(record, ChunkEvent.REFUSE if record.state is ChunkState.RECEIVED else ChunkEvent.LOSE)
        self.resend(record, same_peer_again)

    def cancelled(self, request: Request) -> None:
        """Does nothing: the code that cancels the request cancels the chunk too."""


class PadOwner(Discreet, Struct, eq=False):
    """A batch of pads."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("told",)
    subject: PadBatch
    told: Callable[[Request, ChunkState], None]
    """Called with the new state."""

    def arrived(self, request: Request) -> bool:
        return False  # the time does not count, because the guard computed ahead of need

    def verified(self, request: Request, elements: Elements) -> None:
        self.subject.products = elements
        self.told(request, ChunkState.VERIFIED)

    def failed(self, request: Request, same_peer_again: bool = False) -> None:
        self.subject.failed = True
        self.told(request, ChunkState.LOST)

    def cancelled(self, request: Request) -> None:
        self.subject.failed = True
        self.told(request, ChunkState.CANCELLED)
