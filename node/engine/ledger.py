"""Counts for one request, so that its receipt is true even if other requests ran with it.

A chunk counts for every request that had rows in it. Bytes of a pass are divided by rows, so those of all receipts
add up to what was sent. Times are those of the passes that it took part in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.ledger import ChunkCounts
from node.execution.peer import SessionPeer
from node.session.receipt import PeerShare


class Snapshot(Struct, frozen=True):
    """What a session had counted at one moment."""

    counts: ChunkCounts
    bytes_up: int
    bytes_down: int
    pads_made: int
    pads_paired: int
    seconds: Mapping[str, float]
    chunks: Mapping[int, tuple[int, int]]
    """Of each peer (by its place): requests sent to it, results of it refused."""


def snapshot(
    counts: ChunkCounts,
    peers: Sequence[SessionPeer],
    pads: tuple[int, int],
    seconds: Mapping[str, float],
) -> Snapshot:
    """What a session has counted so far; `pads` are the rows of those made here and by a paired device."""
    return Snapshot(
        replace(counts),
        sum(peer.channel.bytes_up for peer in peers),
        sum(peer.channel.bytes_down for peer in peers),
        *pads,
        dict(seconds),
        {index: (peer.chunks, peer.rejected) for index, peer in enumerate(peers)},
    )


class RequestLedger(Struct):
    """The counts of one request."""

    counts: ChunkCounts = field(default_factory=ChunkCounts)
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    pads_made: float = 0.0
    pads_paired: float = 0.0
    seconds: Counter[str] = field(default_factory=Counter)
    _chunks: Counter[int] = field(default_factory=Counter)
    _rejected: Counter[int] = field(default_factory=Counter)

    def saw(self, record: ChunkRecord) -> None:
        """A chunk with rows of this request changed its state."""
        counts = self.counts
        match record.state:
            case ChunkState.SENT if record.attempts == 1:
                counts.sent += 1
            case ChunkState.HEDGED:
                counts.hedged += 1
                counts.local += 1
            case ChunkState.LOCAL:
                counts.local += 1
            case ChunkState.MERGED:
                counts.merged += 1
                counts.verified = counts.merged - counts.local

    def took_part(self, before: Snapshot, after: Snapshot, share: float, computed_alone: bool) -> None:
        """A pass has ended; this share of its rows belonged to this request.

        Args:
            computed_alone: no peer was asked, so there were no chunk records.
        """
        if computed_alone:
            local = after.counts.local - before.counts.local
            self.counts.local += local
            self.counts.merged += local
        self.counts.rejected += after.counts.rejected - before.counts.rejected
        self.counts.lost += after.counts.lost - before.counts.lost
        self.bytes_up += share * (after.bytes_up - before.bytes_up)
        self.bytes_down += share * (after.bytes_down - before.bytes_down)
        self.pads_made += share * (after.pads_made - before.pads_made)
        self.pads_paired += share * (after.pads_paired - before.pads_paired)
        for name, seconds in after.seconds.items():
            self.seconds[name] += seconds - before.seconds.get(name, 0.0)  # type: ignore[assignment]
        for index, (chunks, rejected) in after.chunks.items():
            chunks_before, rejected_before = before.chunks.get(index, (0, 0))
            self._chunks[index] += chunks - chunks_before
            self._rejected[index] += rejected - rejected_before

    def peer_shares(self, peers: Sequence[SessionPeer]) -> list[PeerShare]:
        """What each peer did for this request, and its state now."""
        shares = [PeerShare.of(peer) for peer in peers]
        return [
            PeerShare(share.peer_id, share.role, self._chunks[index], self._rejected[index], share.status, share.name)
            for index, share in enumerate(shares)
        ]
