"""A chunk of one linear layer and its record, which holds all of its state.

The terminal interface, the receipt and the tests all read this record. Only `TRANSITIONS` says which changes of state
are allowed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct, field

from node.execution.pads.batch import Ticket, next_number
from node.model.unit import UnitRef
from protocol.discreet import Discreet
from protocol.identity import PeerId
from protocol.linear.field import Elements, Floats


class Chunk(Struct, frozen=True):
    """Rows `[row_start, row_end)` of a forward pass through output tiles `[tile_start, tile_end)` of a unit."""

    unit: UnitRef
    row_start: int
    row_end: int
    tile_start: int
    tile_end: int
    num_sent: int
    """Number of rows that are sent: these rows, and zero rows up to a bucket."""

    @property
    def num_rows(self) -> int:
        return self.row_end - self.row_start


class ChunkState(StrEnum):
    """The state of a chunk."""

    PLANNED = "planned"
    SENT = "sent"
    RECEIVED = "received"
    VERIFIED = "verified"
    REJECTED = "rejected"
    LOST = "lost"
    HEDGED = "hedged"
    LOCAL = "local"
    MERGED = "merged"
    CANCELLED = "cancelled"


class ChunkEvent(StrEnum):
    """What happens to a chunk."""

    SEND = "send"
    RECEIVE = "receive"
    ACCEPT = "accept"
    REFUSE = "refuse"
    LOSE = "lose"
    HEDGE = "hedge"
    COMPUTE = "compute"
    MERGE = "merge"
    CANCEL = "cancel"


# SPEC.md section 9.
TRANSITIONS: dict[ChunkState, dict[ChunkEvent, ChunkState]] = {
    ChunkState.PLANNED: {ChunkEvent.SEND: ChunkState.SENT, ChunkEvent.COMPUTE: ChunkState.LOCAL},
    ChunkState.SENT: {
        ChunkEvent.RECEIVE: ChunkState.RECEIVED,
        ChunkEvent.LOSE: ChunkState.LOST,
        ChunkEvent.HEDGE: ChunkState.HEDGED,
        ChunkEvent.COMPUTE: ChunkState.LOCAL,
    },
    ChunkState.RECEIVED: {ChunkEvent.ACCEPT: ChunkState.VERIFIED, ChunkEvent.REFUSE: ChunkState.REJECTED},
    ChunkState.VERIFIED: {
        ChunkEvent.LOSE: ChunkState.LOST,
        ChunkEvent.MERGE: ChunkState.MERGED,
        ChunkEvent.HEDGE: ChunkState.HEDGED,
        ChunkEvent.COMPUTE: ChunkState.LOCAL,
    },
    ChunkState.REJECTED: {ChunkEvent.SEND: ChunkState.SENT, ChunkEvent.COMPUTE: ChunkState.LOCAL},
    ChunkState.LOST: {
        ChunkEvent.SEND: ChunkState.SENT,
        ChunkEvent.HEDGE: ChunkState.HEDGED,
        ChunkEvent.COMPUTE: ChunkState.LOCAL,
    },
    ChunkState.HEDGED: {ChunkEvent.MERGE: ChunkState.MERGED},
    ChunkState.LOCAL: {ChunkEvent.MERGE: ChunkState.MERGED},
    ChunkState.MERGED: {},
    ChunkState.CANCELLED: {},
}
for _state in (
    ChunkState.PLANNED,
    ChunkState.SENT,
    ChunkState.VERIFIED,
    ChunkState.REJECTED,
    ChunkState.LOST,
):
    TRANSITIONS[_state][ChunkEvent.CANCEL] = ChunkState.CANCELLED


class ChunkRecord(Discreet, Struct):
    """The record of one chunk. Its shares and results are dropped as soon as it is merged."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("share", "plain", "ticket", "result")
    chunk: Chunk
    lane: int | None
    """Index of its lane; None if no lane was usable when it was planned."""
    state: ChunkState = ChunkState.PLANNED
    peer_id: PeerId | None = None
    """The peer that computes the share, once it was sent."""
    sent_at: float = 0.0
    attempts: int = 0
    ahead_s: float = 0.0
    """What its peers may take for everything that they were asked before it."""
    losses: int = 0
    """How many connections of the session had broken when the pads of its share were taken."""
    number: int = field(default_factory=next_number)
    """A number that is unique in this process, by which interfaces tell chunks apart."""
    share: Elements | None = None
    """`[bucket, K]`, the share that was sent, and that a retry sends again."""
    plain: Floats | None = None
    """`[bucket, K]` in the trusted mode: the rows themselves, which are sent instead."""
    ticket: Ticket | None = None
    """The pads of its rows; None before it is sent, and once it is merged."""
    result: Elements | None = None
    """Verified `[num_rows, N]` of the share."""

    @property
    def products(self) -> Elements | None:
        """Verified products of its pads `[num_rows, N]`; None while some are missing."""
        return None if self.ticket is None else self.ticket.products()

    @property
    def is_ready(self) -> bool:
        """Whether both halves are here and verified."""
        return self.state is ChunkState.VERIFIED and self.products is not None

    def advance(self, event: ChunkEvent) -> None:
        """Apply an event; an event that the table does not allow is a bug of ours."""
        following = TRANSITIONS[self.state].get(event)
        assert following is not None, f"{event.value} does not follow {self.state.value}"
        self.state = following

    def release(self) -> None:
        """Forget every share and pad: the chunk is merged."""
        self.share = self.plain = self.ticket = self.result = None
