"""`peers`: all peers that this node knows, as interfaces show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.execution.tally import PeerTally
from node.node import Node
from node.serving.hosting import ranges_text, whole_layers
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId
from protocol.membership.peer_table import Entry
from protocol.membership.records import HostedLayers


def peers(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All peers (SPEC.md, Gateway: PEER)."""
    return {"peers": peer_statuses(node)}


def peer_statuses(node: Node) -> list[dict[str, Any]]:
    """One PEER object for every peer of the table and every link, in the order of their PeerIDs; from any thread."""
    connected = {peer.peer_id: peer for peer in node.registry.peers()}
    entries = {} if node.member is None else {entry.record.peer_id: entry for entry in node.member.peers()}
    tallies = node.tally.of_all()
    banned = {entry.peer_id for entry in node.access.entries()}
    everybody = sorted({*connected, *entries, *(peer_id for peer_id in banned if node.access.refusal(peer_id))})
    return [
        _status(node, peer_id, connected.get(peer_id), entries.get(peer_id), tallies.get(peer_id, PeerTally()))
        for peer_id in everybody
    ]


def _status(
    node: Node, peer_id: PeerId, link: ConnectedPeer | None, entry: Entry | None, tally: PeerTally
) -> dict[str, Any]:
    facts = None if entry is None else entry.record.facts
    hello = None if link is None else link.hello
    agent = hello.agent if hello is not None else facts.agent if facts is not None else ""
    addrs = facts.addrs if facts is not None and facts.addrs else hello.addrs if hello is not None else ()
    stated = hello.macs_per_s if hello is not None else facts.capabilities.macs_per_s if facts is not None else 0
    figures = node.registry.measures.of(peer_id).figures if link is not None else None
    return {
        "peer_id": peer_id,
        "name": node.name_of(peer_id),
        "named_here": bool(node.names.of(peer_id)),
        "state": entry.state.name.lower() if entry is not None else "alive" if link is not None else "left",
        "addrs": list(addrs),
        "rtt_ms": None if link is None or link.rtt_s is None else round(link.rtt_s * 1000, 3),
        "roles": [role.name.lower() for role in sorted(tally.roles)],
        "layers": _layers(node, link, entry),
        "holds": _holds(node, link, entry),
        "speed_gmacs": round((figures.row_macs_per_s if figures and figures.measured else stated) / 1e9, 2),
        "version": agent.partition("/")[2],
        "excluded": _excluded(node, peer_id, link, entry),
        "connected": link is not None,
        "paired": peer_id in node.trust.devices,
        "operator": _operator(link, entry),
        "memory_bytes": 0 if facts is None else facts.capabilities.memory_bytes,
        "queued": 0 if figures is None else round(figures.queued),
        "chunks": tally.chunks,
        "rejected": tally.rejected,
        "bytes_up": tally.bytes_up,
        "bytes_down": tally.bytes_down,
    }


def _excluded(node: Node, peer_id: PeerId, link: ConnectedPeer | None, entry: Entry | None) -> str | None:
    """Why this peer gets no work; None if it may get work."""
    refusal = node.access.refusal(peer_id)
    if refusal is not None:
        return refusal
    if entry is not None and entry.equivocated:
        return "it signed two records with one number"
    if link is None:
        return (
            "no link to it" if entry is None or entry.record.facts.addrs else "no link, and it has no address to dial"
        )
    if not link.hello.data_port and node.registry.route_of(peer_id) is None:
        return "its data plane cannot be reached"
    if not link.works:
        return "its owner lends nothing now"
    if not link.hello.hosted and not link.announced:
        return "it serves no layers"
    return None


def _operator(link: ConnectedPeer | None, entry: Entry | None) -> str | None:
    operator = link.hello.operator if link is not None else b""
    if not any(operator) and entry is not None:
        operator = entry.record.facts.capabilities.operator
    return operator.hex() if any(operator) else None


def _layers(node: Node, link: ConnectedPeer | None, entry: Entry | None) -> str:
    """Layers that it serves of the first model that both know: `0-4`, `0-2, 5`, or nothing."""
    if entry is not None:
        return _recorded_layers(node, entry.record.facts.capabilities.hosted)
    if link is None:
        return ""
    for model in node.hosted.models:
        held = link.stated(model.model_id_bytes)
        layers = whole_layers(model.manifest, [ref for ref in model.units if ref.sha256 in held])
        if layers:
            return ranges_text(layers - {model.manifest.config.num_layers})
    return ""


def _holds(node: Node, link: ConnectedPeer | None, entry: Entry | None) -> dict[str, str]:
    """Layers of every model that a peer says it holds, by the model's id; empty where they are not known."""
    if entry is not None:
        hosted = entry.record.facts.capabilities.hosted
        return {one.model_id.hex(): _recorded_layers(node, (one,)) for one in hosted}
    return {} if link is None else {one.model_id.hex(): "" for one in link.hello.hosted}


def _recorded_layers(node: Node, hosted: tuple[HostedLayers, ...]) -> str:
    known = node.hosted.model_ids
    chosen = next((model for model in hosted if model.model_id in known), hosted[0] if hosted else None)
    if chosen is None:
        return ""
    manifest = node.hosted.manifest(chosen.model_id)
    last = None if manifest is None else manifest.config.num_layers  # a record counts the head as one more layer
    return ranges_text({layer for start, end in chosen.ranges for layer in range(start, end) if layer != last})
