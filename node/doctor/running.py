"""Checks by the running node: where it can be dialled, how each peer is reached, whose clock is wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from node.discovery.addresses import is_loopback
from node.discovery.discovery import Discovery
from node.doctor.finding import Finding, broken, note, ok
from node.errors import AddressError
from node.node import Node
from node.process.allowance import total_memory
from node.transport.registry import DialState
from protocol.membership.messages import State
from protocol.membership.peer_table import Entry
from protocol.multiaddr import Multiaddr, parse_multiaddr

REACH_TIMEOUT_S = 2.0
REACH_AT_ONCE = 32
DOUBLED_FOR_S = 3600.0
"""How long a record of another device counts as a sign that it is running."""
CLOCK_NOTE_S = 5.0
CLOCK_BROKEN_S = 120.0


def running_findings(node: Node) -> list[Finding]:
    """All checks that need the running node. They take up to a few seconds, because every peer's address is tried."""
    up_s = time.time() - node.started_at
    found = [ok("node", f"{node.peer_id} has been running for {up_s:.0f} s, kernels {node.kernels.name}")]
    found += _memory(node) + _doubles(node) + _reached(node) + _lan(node.discovery) + _bootstrap(node) + _peers(node)
    return [*found, _clocks([peer.clock_ahead_s for peer in node.registry.peers() if peer.clock_ahead_s is not None])]


def _memory(node: Node) -> list[Finding]:
    """Whether it lends more memory than it may use."""
    lent, most = node.config.memory_bytes, total_memory()
    if lent < most:
        return []
    text = f"{lent / 2**20:.0f} MiB are lent to layers, but this process may use only {most / 2**20:.0f} MiB in all"
    return [broken("memory", text, "start it with less --memory, or give the machine or container more")]


def _doubles(node: Node) -> list[Finding]:
    """Identities that more than one device has, because a data directory was copied."""
    step = "stop one of the devices and start it with a new --data-dir, which gives it a new identity"
    met = node.member.doubled if node.member is not None else None
    found = []
    if met is not None and time.monotonic() - met[0] < DOUBLED_FOR_S:
        text = f"another device has the identity of this node; its addresses: {', '.join(met[1])}"
        found.append(broken("identity", text, step))
    for peer_id, hosts in node.registry.doubles.items():
        text = f"two devices have the identity {peer_id}, connected from {' and '.join(hosts)}"
        found.append(broken("identity", text, step))
    return found


def _reached(node: Node) -> list[Finding]:
    """Whether others can dial this node."""
    if node.address is None:
        return [
            note("reachable", "nobody can dial this node (--listen none); it serves over the links that it opens")
        ]
    if all(map(is_loopback, node.addresses)):
        step = "--listen /ip4/0.0.0.0/tcp/4711 lets other devices in"
        return [note("reachable", "on loopback: only programs on this device can dial this node", step)]
    if node.discovery is None:
        return []
    confirmed, pending = node.discovery.reach.addresses, node.discovery.reach.unconfirmed
    if confirmed:
        return [ok("reachable", f"others come in by {', '.join(map(str, confirmed))}")]
    where = ", ".join(map(str, pending)) or "no address"
    if not node.registry.peers():
        return [note("reachable", f"no peer is there to try {where}", "invite a device: `kekahyde-node invite`")]
    step = f"let TCP port {node.address.port} and the one after it through the firewall, or give --announce ADDRESS"
    return [note("reachable", f"no peer came in at {where}: this node serves over the links that it opens", step)]


def _lan(discovery: Discovery | None) -> list[Finding]:
    if discovery is None:
        return []
    if discovery.lan.is_on:
        return [ok("mDNS", discovery.lan.note)]
    return [
        note("mDNS", f"off: {discovery.lan.note}", "without it, use invitations and --bootstrap to connect devices")
    ]


def _bootstrap(node: Node) -> list[Finding]:
    """Addresses that the node was told to dial and to which it has no link."""
    found, outcomes = [], node.registry.outcomes()
    if outcomes and not _has_met_anyone(node) and all(item.state is DialState.UNREACHABLE for item in outcomes):
        step = (
            "find the address at which this device reaches the inviting one (run `ip address` there; a VPN, the "
            "local network), give it to that node with --announce, and invite again"
        )
        found.append(broken("swarm", f"none of the {len(outcomes)} known addresses leads to a member", step))
    for outcome in outcomes:
        if outcome.state is DialState.REFUSED:
            found.append(broken("bootstrap", outcome.reason, "the message says which of the two has to change"))
        elif outcome.state is DialState.UNREACHABLE:
            step = "check that the node runs there, and that no firewall blocks its port; it is dialled again"
            found.append(note("bootstrap", f"{outcome.address}: {outcome.reason}", step))
    return found


def _has_met_anyone(node: Node) -> bool:
    """Whether any member was ever met; then unreachable members may just be off."""
    return bool(node.registry.peers() or (node.member is not None and node.member.peers()))


def _peers(node: Node) -> list[Finding]:
    """Each member: its state, its link, and whether its addresses accept a connection from here."""
    entries = [entry for entry in node.member.peers() if entry.state is not State.LEFT] if node.member else []
    linked = {peer.peer_id: peer for peer in node.registry.peers()}
    if not entries:
        return [
            note("peers", "this node knows no peers yet", "`kekahyde-node invite` here, then `join LINE` elsewhere")
        ]
    with ThreadPoolExecutor(REACH_AT_ONCE) as pool:
        reached = list(pool.map(_takes_connection, entries))
    found = []
    for entry, is_reached in zip(entries, reached, strict=True):
        peer = linked.get(entry.record.peer_id)
        rtt_ms = None if peer is None or peer.rtt_s is None else peer.rtt_s * 1e3
        found.append(_peer(entry, peer is not None, rtt_ms, is_reached))
    return found


def _peer(entry: Entry, is_linked: bool, rtt_ms: float | None, is_reached: bool | None) -> Finding:
    name = f"{entry.record.peer_id}: {entry.state.name.lower()}"
    way = {None: "it announces no address", True: "its address answers", False: "its address does not answer"}[
        is_reached
    ]
    if entry.state is State.ALIVE and is_linked:
        return ok("peer", f"{name}, linked" + ("" if rtt_ms is None else f", {rtt_ms:.1f} ms") + f"; {way}")
    if entry.state is State.ALIVE:
        step = "open its port in its firewall, or let it dial this node: one of the two directions is enough"
        return note("peer", f"{name} say others, and there is no link; {way}", step)
    step = "check that the device is on and its node runs; it is dialled again automatically"
    return note("peer", f"{name}; {way}", step)


def _takes_connection(entry: Entry) -> bool | None:
    """Whether any of a peer's addresses accepts a TCP connection; None if it has no address."""
    addresses = [address for text in entry.record.facts.addrs if (address := _parsed(text)) is not None]
    return any(map(_connects, addresses)) if addresses else None


def _parsed(text: str) -> Multiaddr | None:
    try:
        return parse_multiaddr(text)
    except AddressError:
        return None


def _connects(address: Multiaddr) -> bool:
    try:
        with closing(socket.create_connection((address.host, address.port), REACH_TIMEOUT_S)):
            return True
    except OSError:
        return False


def _clocks(ahead_s: Sequence[float]) -> Finding:
    """This device's clock, compared with the median of its peers' clocks."""
    if not ahead_s:
        return note("clock of peers", "no peer states its time")
    median = sorted(ahead_s)[len(ahead_s) // 2]
    far = sum(abs(value) > CLOCK_BROKEN_S for value in ahead_s)
    if abs(median) > CLOCK_BROKEN_S and len(ahead_s) >= 2 * (len(ahead_s) - far):
        text = f"this device is {abs(median):.0f} s {'behind' if median > 0 else 'ahead of'} its peers"
        return broken(
            "clock of peers", text, "set the clock (timedatectl set-ntp true): expiries and records depend on it"
        )
    if far or abs(median) > CLOCK_NOTE_S:
        text = f"{far} of {len(ahead_s)} peers are more than {CLOCK_BROKEN_S:.0f} s off; median {median:+.1f} s"
        return note("clock of peers", text, "set the clocks of these devices")
    return ok("clock of peers", f"{len(ahead_s)} peers, median {median:+.2f} s from this device")
