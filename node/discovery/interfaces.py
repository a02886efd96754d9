"""The addresses of this device's interfaces, in order of how likely others can reach them.

A host that runs containers has a bridge for each container network, and the system lists all of them before a VPN.
Only a few addresses can be announced, and those of bridges cannot be reached from outside.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import psutil

ROOT = Path("/")
_ADDRESS_BITS = {"ip4": 32, "ip6": 128}


def own_hosts(protocol: str, root: Path = ROOT) -> list[str]:
    """Hosts of every interface for `ip4` or `ip6`, the most useful first: on the default route, global, private, on
    bridges without hardware, link-local, loopback."""
    gateways = _default_route_interfaces(root, protocol)
    found = []
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            host = _plain(entry.address)
            if host is not None and host.max_prefixlen == _ADDRESS_BITS[protocol]:
                found.append((_rank(host, name in gateways, _is_inner_bridge(root, name)), str(host)))
    return list(dict.fromkeys(host for _, host in sorted(found, key=lambda ranked: ranked[0])))


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address; None for a hardware address, and for a link-local one with a zone, which a multiaddr cannot
    name."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _rank(host: ipaddress.IPv4Address | ipaddress.IPv6Address, has_default_route: bool, is_inner: bool) -> int:
    if host.is_loopback:
        return 5
    if host.is_link_local:
        return 4
    if has_default_route:
        return 0
    if is_inner:
        return 3
    return 1 if host.is_global else 2


def _is_inner_bridge(root: Path, name: str) -> bool:
    """Whether an interface is a bridge without any hardware of this device: it connects only containers or virtual
    machines."""
    folder = root / "sys/class/net" / name
    if not (folder / "bridge").exists():
        return False
    try:
        ports = [port.name for port in (folder / "brif").iterdir()]
    except OSError:
        return True
    return not any((root / "sys/class/net" / port / "device").exists() for port in ports)


def _default_route_interfaces(root: Path, protocol: str) -> set[str]:
    """Interfaces with a default route."""
    if protocol == "ip4":
        rows = [line.split() for line in _lines(root / "proc/net/route")[1:]]
        return {row[0] for row in rows if len(row) > 7 and int(row[1], 16) == 0 and int(row[7], 16) == 0}
    rows = [line.split() for line in _lines(root / "proc/net/ipv6_route")]
    return {row[-1] for row in rows if len(row) > 9 and set(row[0]) == {"0"} and row[1] == "00" and row[-1] != "lo"}


def _lines(path: Path) -> list[str]:
    """The lines of a file; empty if the system has no such file."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
