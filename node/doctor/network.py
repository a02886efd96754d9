"""Checks of this device's network if no node runs: ports and multicast."""

from __future__ import annotations

import errno
import socket
from contextlib import closing

import psutil

from node.discovery.addresses import is_loopback
from node.doctor.finding import Finding, broken, note, ok
from protocol.multiaddr import Multiaddr

MDNS_PORT = 5353


def network_findings(listen: Multiaddr | None) -> list[Finding]:
    """Whether a node could listen at `listen` (None: it would only dial out) and announce itself."""
    if listen is None:
        return [note("port", "--listen none: nobody can dial this node; it serves the peers that it dials")]
    return [_port(listen), _multicast(listen)]


def _port(listen: Multiaddr) -> Finding:
    family = socket.AF_INET if listen.protocol == "ip4" else socket.AF_INET6
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
    except OSError as exc:
        step = "choose another with --listen (port 0 takes any free one), or stop the program that uses it (ss -ltnp)"
        if exc.errno == errno.EADDRNOTAVAIL:
            step = "no interface has this address: see `ip address`, or listen on /ip4/0.0.0.0"
        return broken("port", f"cannot listen on {listen}: {exc.strerror or exc}", step)
    where = "any free port" if not listen.port else f"port {listen.port}"
    if is_loopback(listen):
        step = "--listen /ip4/0.0.0.0/tcp/4711 lets other devices in, once they have an invitation"
        return note("port", f"{where} on loopback: only programs on this device could dial the node", step)
    return ok("port", f"{where} on {listen.host} is free")


def _multicast(listen: Multiaddr) -> Finding:
    if is_loopback(listen):
        return note("mDNS", "off: the node would listen only on loopback")
    up = [name for name, state in psutil.net_if_stats().items() if state.isup]
    lans = [name for name in up if any(_is_lan(entry) for entry in psutil.net_if_addrs().get(name, []))]
    if not lans:
        return note("mDNS", "no interface of a local network is up", "connect to a network, or use --bootstrap")
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(("", MDNS_PORT))
    except OSError as exc:
        step = "another program does not share the port (ss -lunp): end it, or use --no-mdns and invitations"
        return note("mDNS", f"UDP port {MDNS_PORT} cannot be shared: {exc.strerror}", step)
    return ok("mDNS", f"possible on {', '.join(lans)}")


def _is_lan(entry: object) -> bool:
    family, address = getattr(entry, "family", None), str(getattr(entry, "address", ""))
    return family == socket.AF_INET and not address.startswith("127.")
