"""What membership asks its driver to do, in the order in which it is to be done."""

from __future__ import annotations

from msgspec import Struct

from protocol.identity import PeerId
from protocol.membership.messages import MembershipMessage, State
from protocol.membership.records import PeerRecord
from protocol.message import Ping


class Send(Struct, frozen=True):
    """Send over any link to this peer, or drop it where there is none: loss is expected."""

    peer: PeerId
    message: MembershipMessage | Ping


class Changed(Struct, frozen=True):
    """There is news of a peer: the peer, its record or its state is new."""

    peer: PeerId
    state: State
    previous: State | None
    """None: it was unknown."""
    record: PeerRecord


class Issued(Struct, frozen=True):
    """This node has a new record of its own. Its seq must be on disk before any later action is done."""

    record: PeerRecord


class Forked(Struct, frozen=True):
    """A peer signed two records with one seq: proof of a broken or dishonest node."""

    peer: PeerId
    first: PeerRecord
    second: PeerRecord


class Doubled(Struct, frozen=True):
    """There is a record of this node that is newer than its own and that it did not sign: another device has its key,
    or this device's clock was set back while its data directory was replaced by an older one."""

    record: PeerRecord


class Misbehaved(Struct, frozen=True):
    """A peer sent what no honest one sends."""

    peer: PeerId
    reason: str


class Forgotten(Struct, frozen=True):
    """A peer is no longer in the table: its tombstone ran out, or it made room."""

    peer: PeerId


Action = Send | Changed | Issued | Forked | Doubled | Misbehaved | Forgotten
