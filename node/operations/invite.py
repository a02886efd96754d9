"""`invite`: a line that lets another device into this node's swarm."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

from node.errors import AddressError, ConfigError
from node.node import Node
from node.swarm.inviting import DEFAULT_EXPIRY_S, MAX_EXPIRY_S, key_is_shared, write_invitation
from protocol.finding.invitation import MAX_MODEL_NAME_CHARACTERS, InvitedModel
from protocol.membership.messages import State
from protocol.multiaddr import Multiaddr, parse_multiaddr


def invite(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`expires_s` -> the line, when it expires, the addresses in it, and a note if it has limits."""
    expires_s = arguments.get("expires_s", DEFAULT_EXPIRY_S)
    is_number = isinstance(expires_s, int | float) and not isinstance(expires_s, bool)
    if not is_number or not math.isfinite(expires_s) or not 0 < expires_s <= MAX_EXPIRY_S:
        raise ConfigError(f"expires_s is {expires_s!r}: give seconds, more than 0 and at most {MAX_EXPIRY_S:g}")
    key = node.config.swarm_key
    expires = int(time.time() + expires_s)
    written = write_invitation(key, _own(node), _others(node), _models(node), expires)
    if node.config.state is not None:
        key_is_shared(node.config.state, key)
    return {
        "line": written.line,
        "expires": expires,
        "addrs": [str(address) for address in written.invitation.addresses],
        "note": written.note,
    }


def _own(node: Node) -> list[Multiaddr]:
    """Every address of this node: first those that the user announced, then those that a peer confirmed."""
    proved = () if node.discovery is None else node.discovery.reach.addresses
    addresses = (*node.config.announced, *proved, *node.every_address)
    return list(dict.fromkeys(address.with_peer(node.peer_id) for address in addresses))


def _others(node: Node) -> list[Multiaddr]:
    """One address of each live member."""
    found = []
    for entry in node.member.peers() if node.member is not None else []:
        if entry.state is State.ALIVE and entry.record.facts.addrs:
            with contextlib.suppress(AddressError):
                found.append(parse_multiaddr(entry.record.facts.addrs[0]).with_peer(entry.record.peer_id))
    return found


def _models(node: Node) -> list[InvitedModel]:
    return [
        InvitedModel(model.model_id_bytes, (model.name or model.model_id[:16])[:MAX_MODEL_NAME_CHARACTERS])
        for model in node.hosted.models
    ]
