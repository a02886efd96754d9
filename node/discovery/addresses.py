"""Who can reach an address of this node."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.finding.dialback import host_of
from protocol.multiaddr import Multiaddr


def is_loopback(address: Multiaddr) -> bool:
    """Whether only this device can dial it."""
    host = host_of(address.host)
    return host is not None and host.is_loopback


def lan_hosts(addresses: Iterable[Multiaddr]) -> tuple[str, ...]:
    """Hosts that others in a local network could dial, each once: IP addresses that are not loopback."""
    hosts = ((address.host, host_of(address.host)) for address in addresses)
    usable = [text for text, host in hosts if host is not None and not host.is_loopback and not host.is_unspecified]
    return tuple(dict.fromkeys(usable))
