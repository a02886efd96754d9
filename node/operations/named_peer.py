"""Which peer a user means: a whole PeerID, or the end of one, as the interface shows it."""

from __future__ import annotations

from node.errors import OperationError
from node.node import Node

MIN_END_CHARACTERS = 4
WHOLE_CHARACTERS = 46
"""No PeerID of an Ed25519 or RSA key is shorter."""


def peer_named(node: Node, given: str) -> str:
    """The PeerID of which this is the end; the text itself where it is long enough to be a whole one.

    Raises:
        OperationError: it is the end of no known PeerID, or of several.
    """
    end = given.strip().lstrip("….")
    if len(end) >= WHOLE_CHARACTERS or len(end) < MIN_END_CHARACTERS or not end.isalnum():
        return given
    known = {peer.peer_id for peer in node.registry.peers()} | {entry.peer_id for entry in node.access.entries()}
    known |= {device.peer_id for device in node.trust.devices.devices()}
    if node.member is not None:
        known |= {entry.record.peer_id for entry in node.member.peers()}
    meant = sorted(peer_id for peer_id in known if peer_id.endswith(end))
    if len(meant) > 1:
        raise OperationError(f"{given} is the end of several PeerIDs: {', '.join(meant)}; give more of it")
    if not meant:
        raise OperationError(f"no known PeerID ends with {given}: `kekahyde-node peers` shows them")
    return meant[0]
