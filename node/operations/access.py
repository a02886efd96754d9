"""`ban`, `allow`, `forget`, `access`: the ban list and the allow list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.errors import OperationError
from node.node import Node
from node.operations.arguments import boolean, optional_number, text
from node.operations.named_peer import peer_named
from node.swarm.access import Verdict


def ban(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keep `peer_id` out for `duration_s` seconds or for ever, and end its links."""
    peer_id = peer_named(node, text(arguments, "peer_id"))
    if peer_id == node.peer_id:
        raise OperationError("this is the node itself: give the PeerID of another (`kekahyde-node peers`)")
    entry = node.access.put(
        peer_id, Verdict.BAN, optional_number(arguments, "duration_s"), text(arguments, "reason", default="")
    )
    node.expel(entry.peer_id, "banned")
    return {"entry": entry.as_json()}


def allow(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Put `peer_id` on the allow list, replacing an earlier entry."""
    peer_id = peer_named(node, text(arguments, "peer_id"))
    entry = node.access.put(
        peer_id, Verdict.ALLOW, optional_number(arguments, "duration_s"), text(arguments, "reason", default="")
    )
    return {"entry": entry.as_json()}


def forget(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Remove `peer_id` from both lists."""
    peer_id = peer_named(node, text(arguments, "peer_id"))
    if not node.access.remove(peer_id):
        raise OperationError(f"{peer_id} is on no list: `kekahyde-node ban --list` shows the entries")
    _end_unwanted(node)
    return {"peer_id": peer_id}


def access(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Both lists. With `only_allowed`, first sets whether only peers on the allow list are let in, or everybody."""
    if "only_allowed" in arguments:
        node.access.set_only_allowed(boolean(arguments, "only_allowed"))
        _end_unwanted(node)
    return {
        "only_allowed": node.access.only_allowed,
        "entries": [entry.as_json() for entry in node.access.entries()],
    }


def _end_unwanted(node: Node) -> None:
    for peer in node.registry.peers():
        refusal = node.access.refusal(peer.peer_id)
        if refusal is not None:
            node.expel(peer.peer_id, refusal)
