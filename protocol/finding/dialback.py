"""Dial-back: how a node learns whether others can dial it, and what a peer does for it.

A node asks a peer to dial an address of the host that this peer sees it at, with a nonce. The peer opens a new link
to that address and repeats the nonce over it. Only the nonce's arrival over a link that came in counts; a peer's word
that it got through does not. A peer never dials another host than the asker's own: so nobody can make it knock at a
third party's door.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Self

from protocol.errors import AddressError, RemoteProtocolError
from protocol.fields import take_bytes, take_integer, take_text
from protocol.identity import PeerId
from protocol.limits import NONCE_BYTES
from protocol.message import BodyMessage, MessageType
from protocol.multiaddr import MAX_ADDRESS_CHARACTERS, Multiaddr, parse_multiaddr

SERVE_BURST = 6
SERVE_PERIOD_S = 60.0
"""So many requests of one peer are served in this time, one at a time."""
SERVE_AT_ONCE = 32
"""Most requests, of all peers together, that are served at one time."""


class DialBackStatus(IntEnum):
    """How a dial-back ended. 0 is no status."""

    REACHED = 1
    UNREACHABLE = 2


class DialBack(BodyMessage, frozen=True):
    """Request: dial me back at this address, which is on the host you see me at, and repeat the nonce there."""

    TYPE: ClassVar[MessageType] = MessageType.DIAL_BACK
    address: str
    nonce: bytes

    def to_body(self) -> dict[int, Any]:
        return {0: self.address, 1: self.nonce}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        return cls(take_text(body, 0, MAX_ADDRESS_CHARACTERS), take_bytes(body, 1, NONCE_BYTES))


class DialBackResult(BodyMessage, frozen=True):
    """Over the new link, with status REACHED: the proof. Over the link of the request: the outcome."""

    TYPE: ClassVar[MessageType] = MessageType.DIAL_BACK_RESULT
    nonce: bytes
    status: DialBackStatus

    def to_body(self) -> dict[int, Any]:
        return {0: self.nonce, 1: int(self.status)}

    @classmethod
    def from_body(cls, body: Mapping[int, Any]) -> Self:
        status = take_integer(body, 1, DialBackStatus.REACHED, DialBackStatus.UNREACHABLE)
        return cls(take_bytes(body, 0, NONCE_BYTES), DialBackStatus(status))


def host_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address in any spelling (brackets, IPv4 mapped into IPv6); None for a name or anything else."""
    try:
        host = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host


def dialable(request: DialBack, asker: PeerId, seen_host: str) -> Multiaddr:
    """The address that may be dialled for `asker`, who is seen at `seen_host`.

    Raises RemoteProtocolError for any other host, for a host name (which could lead anywhere), and for another peer.
    """
    try:
        address = parse_multiaddr(request.address)
    except AddressError as exc:
        raise RemoteProtocolError(str(exc)) from exc
    host = host_of(address.host)
    if host is None or not address.port or host != host_of(seen_host):
        raise RemoteProtocolError("only an address on the host that asks is dialled back")
    if address.peer_id not in (None, asker):
        raise RemoteProtocolError("the address names another peer than the one that asks")
    return address.with_peer(asker)


class DialBackServer:
    """Which requests are served: few of each peer, and few at one time."""

    def __init__(self) -> None:
        self._busy: set[PeerId] = set()
        self._served: dict[PeerId, list[float]] = {}

    def admit(self, now: float, peer: PeerId) -> bool:
        """Whether a request is served now; `done` is called when it is over."""
        for known in [known for known, times in self._served.items() if times[-1] < now - SERVE_PERIOD_S]:
            del self._served[known]
        times = [time for time in self._served.get(peer, []) if time >= now - SERVE_PERIOD_S]
        if peer in self._busy or len(self._busy) >= SERVE_AT_ONCE or len(times) >= SERVE_BURST:
            return False
        self._served[peer] = [*times, now]
        self._busy.add(peer)
        return True

    def done(self, peer: PeerId) -> None:
        self._busy.discard(peer)
