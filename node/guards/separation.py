"""What two peers visibly have in common. This never speaks for a peer; it can only keep two peers apart.

Somebody who runs both sides of a lane can read its rows. Equal operators and equal subnets make that more likely;
different ones prove nothing, they only make it more expensive.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct

from protocol.identity import PeerId

SUBNET_BITS = {4: 24, 6: 48}
NO_OPERATOR = bytes(16)


class Closeness(IntEnum):
    """What two peers have in common; a lower value is better."""

    NOTHING = 0
    SUBNET = 1
    HOST = 2
    OPERATOR = 3


class Candidate(Struct, frozen=True):
    """The facts about a peer that matter for the choice of guards."""

    peer_id: PeerId
    host: str
    """The host of its connection; an IPv6 host may be in brackets."""
    operator: bytes = NO_OPERATOR
    """Zero if it does not state one."""
    paired: bool = False
    """Whether it is a device of this node's own user; all of these count as one operator."""
    units: frozenset[bytes] = frozenset()
    """Hashes of the units of the model that it holds."""


def closeness(one: Candidate, other: Candidate) -> Closeness:
    """The worst thing that two peers have in common.

    Loopback, link-local and private networks are small and belong to one person: there only equal hosts count.
    """
    if one.operator == other.operator != NO_OPERATOR or (one.paired and other.paired):
        return Closeness.OPERATOR
    here, there = _address(one.host), _address(other.host)
    if here is None or there is None:
        return Closeness.HOST if one.host == other.host else Closeness.NOTHING
    if here == there:
        return Closeness.HOST
    if here.version != there.version or not (here.is_global and there.is_global):
        return Closeness.NOTHING
    bits = SUBNET_BITS[here.version]
    subnet = ipaddress.ip_network(f"{here}/{bits}", strict=False)
    return Closeness.SUBNET if there in subnet else Closeness.NOTHING


def what_gave_way(pairs: Sequence[tuple[Candidate, Candidate]]) -> tuple[str, ...]:
    """One sentence for each rule that was relaxed for some lane."""
    found = [closeness(*pair) for pair in pairs]
    words = {
        Closeness.OPERATOR: "both guards of a lane belong to one operator",
        Closeness.HOST: "both guards of a lane are on one host",
        Closeness.SUBNET: "both guards of a lane are in one subnet",
    }
    return tuple(
        f"{text} ({found.count(level)} of {len(pairs)} lanes): no better separated peers were available"
        for level, text in words.items()
        if level in found
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in a host's text; None for a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
