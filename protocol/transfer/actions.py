"""Actions that a fetch asks its caller for, and the blobs that it can be told to fetch."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from protocol.identity import PeerId
from protocol.message import Cancel
from protocol.transfer.messages import TransferMessage
from protocol.transfer.outline import Outline


class Wanted(Struct, frozen=True):
    """One blob that is to be fetched."""

    sha256: bytes
    max_bytes: int
    """A source that states a larger size is not believed."""
    size_bytes: int | None = None
    """Where the manifest says it."""
    level: int = 0
    """Blobs of a lower level come first."""


class Send(Struct, frozen=True):
    """Send this to a source."""

    peer_id: PeerId
    message_id: int
    message: TransferMessage | Cancel


class Begin(Struct, frozen=True):
    """This outline is followed from now on: say with `have` which pieces of it are on the disk already."""

    sha256: bytes
    outline: Outline


class Write(Struct, frozen=True):
    """A verified piece; `written` gives its source credit for the next."""

    peer_id: PeerId
    sha256: bytes
    index: int
    data: bytearray


class Check(Struct, frozen=True):
    """Every piece is written: compare the whole blob with its hash and say so with `checked`."""

    sha256: bytes


class Drop(Struct, frozen=True):
    """This source is not used any more."""

    peer_id: PeerId
    reason: str
    lied: bool
    """It sent or stated what cannot be true and what no fault of the network explains: it may be banned."""


Action = Send | Begin | Write | Check | Drop


class Verdict(Enum):
    """What the comparison of a whole blob with its hash gave."""

    WHOLE = "whole"
    FALSE_OUTLINE = "false outline"
    """Every piece is as the outline says, and the whole is not as the hash says."""
    DAMAGED = "damaged"
    """The disk does not hold what was written to it; `have` says what it holds."""
