"""What every link of a node shares, whoever opened it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import zmq.asyncio
from msgspec import Struct

from node.transport.links import Links
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from protocol.identity import PeerId
from protocol.limits import NONCE_BYTES
from protocol.link.admission import SwarmKey
from protocol.link.handshake import Handshake, Side
from protocol.link.hello import Hello


class Pace(Struct, frozen=True):
    """How fast a link lives."""

    hello_timeout_s: float = 3.0
    ping_interval_s: float = 1.0
    silence_limit_s: float = 5.0
    """A link without a frame for this long is gone: five pings."""
    redial_first_s: float = 0.2
    redial_max_s: float = 5.0
    """Pauses before dialling again, doubled each time between the two, with jitter."""


DEFAULT_PACE = Pace()
LINKS_PINGED_EACH_INTERVAL = 16
MAX_PING_SHARE = 0.4
"""Interval of pings as a part of the silence that ends a link: two pings may be lost."""


class LinkContext(Struct, frozen=True):
    """The node as its links see it."""

    secure: SecureContext
    sockets: zmq.asyncio.Context
    registry: PeerRegistry
    links: Links
    hello: Callable[[], Hello]
    """What this node says of itself now."""
    queued: Callable[[], int]
    """Requests that wait for its worker."""
    on_up: Callable[[PeerId], None]
    """Called when a peer's hello was accepted."""
    pace: Pace
    swarm: SwarmKey | None = None
    """Key of the swarm; None: it is open."""
    refusal: Callable[[PeerId], str | None] = lambda peer_id: None
    """Why this node does not want a peer; None where it does."""
    on_fault: Callable[[PeerId, str], None] = lambda peer_id, reason: None
    """Called with who is to be kept out for a while, and why."""

    @property
    def ping_interval_s(self) -> float:
        """Longer where there are many links: membership probes as well, and pings cost both sides."""
        crowd = max(1.0, len(self.links) / LINKS_PINGED_EACH_INTERVAL)
        return min(self.pace.ping_interval_s * crowd, MAX_PING_SHARE * self.pace.silence_limit_s)

    def new_handshake(self, side: Side, expected_peer: PeerId | None = None) -> Handshake:
        """One side of a new link."""
        return Handshake(side, self.secure.identity.public_key, self.swarm, expected_peer, self.refusal)


def new_nonce() -> bytes:
    """Random bytes that make a hello unique."""
    return secrets.token_bytes(NONCE_BYTES)
