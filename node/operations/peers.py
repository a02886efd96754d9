"""`peers`: everybody this node knows of, as the interfaces show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.node import Node
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId


def peers(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All peers (SPEC.md, Gateway: PEER)."""
    return {"peers": peer_statuses(node)}


def peer_statuses(node: Node) -> list[dict[str, Any]]:
    """One PEER object for every peer, in the order of their PeerIDs; from any thread."""
    connected = sorted(node.registry.peers(), key=lambda peer: peer.peer_id)
    return [_status(node, peer) for peer in connected]


def _status(node: Node, peer: ConnectedPeer) -> dict[str, Any]:
    hello = peer.hello
    return {
        "peer_id": PeerId(peer.peer_id),
        "state": "alive",
        "addrs": list(hello.addrs),
        "rtt_ms": None if peer.rtt_s is None else round(peer.rtt_s * 1000, 3),
        "roles": [],
        "layers": _layers(node, peer),
        "speed_gmacs": round(hello.macs_per_s / 1e9, 2),
        "version": hello.agent,
        "excluded": None,
        "connected": True,
        "paired": False,
        "operator": None,
        "memory_bytes": 0,
        "queued": 0,
        "chunks": 0,
        "rejected": 0,
        "bytes_up": 0,
        "bytes_down": 0,
    }


def _layers(node: Node, peer: ConnectedPeer) -> str:
    """Layers whose every unit it holds, of the first model that both serve: `0-4`, `0-2,5`, or nothing."""
    for model in node.hosted.models:
        held = peer.hosts(model.model_id_bytes)
        wanted: dict[int, list[bytes]] = {}
        for ref in model.units:
            if ref.layer is not None:
                wanted.setdefault(ref.layer, []).append(ref.sha256)
        layers = [layer for layer, units in wanted.items() if held.issuperset(units)]
        if layers:
            return layer_ranges(layers)
    return ""


def layer_ranges(layers: list[int]) -> str:
    """`[0, 1, 2, 5]` as `0-2,5`."""
    ranges: list[list[int]] = []
    for layer in sorted(layers):
        if ranges and ranges[-1][1] == layer - 1:
            ranges[-1][1] = layer
        else:
            ranges.append([layer, layer])
    return ",".join(str(start) if start == end else f"{start}-{end}" for start, end in ranges)
