"""One blob on its way: which outline is followed, which pieces are missing, who was asked for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum

from msgspec import Struct, field

from protocol.identity import PeerId
from protocol.transfer.actions import Wanted
from protocol.transfer.outline import Outline, num_pieces, outline_of_one_piece


class BlobState(Enum):
    """Life of a blob."""

    OUTLINING = "outlining"
    BEGINNING = "beginning"
    """An outline is followed; what the disk holds of it is being looked at."""
    FETCHING = "fetching"
    CHECKING = "checking"
    DONE = "done"


class Blob(Struct):
    """State of one wanted blob."""

    wanted: Wanted
    order: int
    state: BlobState = BlobState.OUTLINING
    outlines: dict[bytes, Outline] = field(default_factory=dict)
    """What sources stated, by root."""
    claimed_by: dict[PeerId, bytes] = field(default_factory=dict)
    """Also by sources that have left since: their lies still count."""
    false_roots: set[bytes] = field(default_factory=set)
    root: bytes | None = None
    """Of the outline that is followed."""
    first_claim_at: float | None = None
    missing: set[int] = field(default_factory=set)
    """Pieces that no source was asked for."""
    asked: dict[int, dict[PeerId, int]] = field(default_factory=dict)
    """For each piece that was asked for: its sources and message ids."""

    @property
    def sha256(self) -> bytes:
        return self.wanted.sha256

    @property
    def outline(self) -> Outline | None:
        return None if self.root is None else self.outlines[self.root]

    def own_outline(self) -> Outline | None:
        """The outline that no source has to state: that of a blob of one piece whose size is in the manifest."""
        size = self.wanted.size_bytes
        return outline_of_one_piece(self.sha256, size) if size is not None and num_pieces(size) == 1 else None

    def claim(self, peer_id: PeerId, outline: Outline, now: float) -> None:
        """A source stated an outline."""
        root = outline.root
        self.outlines[root] = outline
        self.claimed_by[peer_id] = root
        if self.first_claim_at is None:
            self.first_claim_at = now

    def is_believable(self, outline: Outline) -> bool:
        """Whether the size, and for a single piece the hash, are what they must be."""
        known = self.wanted.size_bytes
        if outline.size_bytes > self.wanted.max_bytes or (known is not None and outline.size_bytes != known):
            return False
        return len(outline.pieces) > 1 or outline.pieces[0] == self.sha256

    def favourite(self, stated: Iterable[bytes]) -> bytes | None:
        """The root that most present sources stated, of those not yet shown to be false."""
        votes = Counter(root for root in stated if root not in self.false_roots)
        return min(votes, key=lambda root: (-votes[root], root)) if votes else None

    def release(self, index: int, peer_id: PeerId) -> None:
        """A source will not answer for this piece."""
        asked = self.asked.get(index)
        if asked is not None and asked.pop(peer_id, None) is not None and not asked:
            del self.asked[index]
            self.missing.add(index)
