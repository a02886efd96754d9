"""`send_chunk_to_peer`: one request on its way, and remembered until it is answered."""

from __future__ import annotations

import time

from node.execution.peer import Request, SessionPeer


def send_chunk_to_peer(peer: SessionPeer, request: Request) -> bool:
    """Send a request to a peer and book it as in flight; False where the connection cannot take it.

    A retry calls this again with a request that carries the very same share or seed.
    """
    request.sent_at = time.monotonic()
    if not peer.usable or not peer.channel.send(request.message, request.id):
        return False
    peer.in_flight[request.id] = request
    peer.chunks += 1
    return True
