"""Which peer a user means: its name, a whole PeerID, or the end of one, as the interface shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from node.errors import OperationError
from node.node import Node
from node.operations.arguments import text
from protocol.identity import PeerId

MIN_END_CHARACTERS = 4
WHOLE_CHARACTERS = 46
"""No PeerID of an Ed25519 or RSA key is shorter."""


def peer_named(node: Node, given: str) -> str:
    """The PeerID of the peer with this name, given here or said by itself, or of which this is the end; the text
    itself where it is long enough to be a whole one.

    A name given here counts before the names that peers say of themselves: they may say any.

    Raises:
        OperationError: no known peer is meant, or several.
    """
    wanted = given.strip()
    end = wanted.lstrip("….")
    if len(end) >= WHOLE_CHARACTERS:
        return end
    here = (peer_id for peer_id, name in node.names.all().items() if name.casefold() == wanted.casefold())
    said = (peer.peer_id for peer in node.registry.peers() if peer.hello.name.casefold() == wanted.casefold())
    by_end = (peer_id for peer_id in _known(node) if peer_id.endswith(end))
    return (
        _only(here, given)
        # together: a peer that calls itself as another's PeerID ends is not taken for that one
        or _only([*(said if wanted else ()), *(by_end if len(end) >= MIN_END_CHARACTERS else ())], given)
        or _nobody(given)
    )


def name(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give `peer` this `name`; empty: the name given here is removed. Without `peer`: name this device."""
    peer_id = peer_named(node, text(arguments, "peer")) if arguments.get("peer") else node.peer_id
    node.names.give(PeerId(peer_id), text(arguments, "name"))
    if peer_id == node.peer_id:
        node.name = node.names.of(peer_id)
    return {"peer_id": peer_id, "name": node.names.of(peer_id)}


def _known(node: Node) -> set[str]:
    known: set[str] = {peer.peer_id for peer in node.registry.peers()} | set(node.names.all())
    known |= {entry.peer_id for entry in node.access.entries()}
    known |= {device.peer_id for device in node.trust.devices.devices()}
    if node.member is not None:
        known |= {entry.record.peer_id for entry in node.member.peers()}
    return known


def _only(meant: Iterable[str], given: str) -> str:
    """The one that is meant; empty for none. Raises OperationError for several."""
    found = sorted(set(meant))
    if len(found) > 1:
        raise OperationError(f"{given} can mean several peers: {', '.join(found)}; give a whole PeerID")
    return found[0] if found else ""


def _nobody(given: str) -> str:
    raise OperationError(
        f"no known peer is called {given}, and no PeerID ends with it: `kekahyde-node peers` shows them"
    )
