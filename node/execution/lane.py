"""A lane of a running session: a fixed way for rows."""

from __future__ import annotations

from dataclasses import dataclass

from node.execution.pads import GuardPads, PadSource
from node.execution.peer import SessionPeer


@dataclass(slots=True)
class Lane:
    """Who gets the shares, and where the pads come from."""

    index: int
    share_peer: SessionPeer
    pads: PadSource

    @property
    def usable(self) -> bool:
        return self.share_peer.usable and self.pads.usable

    @property
    def guard(self) -> SessionPeer | None:
        """The peer that makes its pads; None where no peer does."""
        return self.pads.guard if isinstance(self.pads, GuardPads) else None
