"""Builds and sends requests: shares for group B and seeds for group A, each bound to its peer's session and nonce."""

from __future__ import annotations

import numpy as np

from node.execution.owners import PadOwner, ShareOwner
from node.execution.peer import Request, SessionPeer
from protocol.errors import LocalProtocolError
from protocol.limits import TILE_OUTPUTS
from protocol.linear.field import Elements
from protocol.linear.messages import ChunkBinding, Linear, Role, TrustedLinear, UnitRequest

_NOT_DRAWN: Elements = np.empty((0, 0), np.uint32)


def share_request(peer: SessionPeer, model_id: bytes, owner: ShareOwner, share: Elements) -> Request:
    """A request for the product of a chunk's share `[bucket, K]`; a retry gets a new nonce."""
    record = owner.subject
    chunk, message_id, num_rows = record.chunk, next(peer.ids), len(share)
    tiles = chunk.tile_start, chunk.tile_end
    role = Role.SHARE if record.plain is None else Role.PLAIN
    if peer.role is not role:
        raise LocalProtocolError(f"a {role.name} of a row is not for a peer in the role {peer.role.name}")
    binding = ChunkBinding(peer.session, message_id, model_id, chunk.unit.sha256, role, 0, num_rows, *tiles)
    macs = num_rows * chunk.unit.num_inputs * chunk.unit.num_outputs
    message: UnitRequest = Linear(binding, rows=share)
    if record.plain is not None:
        message = TrustedLinear(binding, record.plain)
    num_bytes = 4 * num_rows * (chunk.unit.num_inputs + chunk.unit.num_outputs)
    return Request(message_id, binding, chunk.unit, share, owner, message, 0.0, macs, num_bytes)


def pad_request(peer: SessionPeer, model_id: bytes, owner: PadOwner) -> Request:
    """A request for the products of a batch of pads, for all output tiles of its unit. Who sends it sets its inputs,
    the pads, when it is on its way: its guard draws them meanwhile, too."""
    if peer.role is not Role.PAD:
        raise LocalProtocolError(f"the seed of a pad is not for a peer in the role {peer.role.name}")
    batch = owner.subject
    ref, message_id, num_rows = batch.unit, next(peer.ids), batch.num_rows
    tiles = 0, -(-ref.num_outputs // TILE_OUTPUTS)
    binding = ChunkBinding(peer.session, message_id, model_id, ref.sha256, Role.PAD, 0, num_rows, *tiles)
    macs = num_rows * ref.num_inputs * ref.num_outputs
    message = Linear(binding, seed=batch.seed)
    num_bytes = 4 * num_rows * ref.num_outputs
    return Request(message_id, binding, ref, _NOT_DRAWN, owner, message, 0.0, macs, num_bytes)


def fill_bucket(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """The rows of a chunk, filled with zero rows up to its bucket."""
    if len(rows) == num_rows:
        return rows
    filled = np.zeros((num_rows, rows.shape[1]), dtype=rows.dtype)
    filled[: len(rows)] = rows
    return filled


def send_chunk_to_peer(peer: SessionPeer, request: Request, now: float) -> bool:
    """Send a request to a peer and record it as in flight; returns False if the connection cannot take it.

    A retry calls this again with a request that has exactly the same share or seed.
    """
    request.sent_at = now
    if not peer.usable or not peer.channel.send(request.message, request.id):
        return False
    was_sent(peer, request)
    return True


def was_sent(peer: SessionPeer, request: Request) -> None:
    """Record a request as in flight."""
    peer.in_flight[request.id] = request
    peer.chunks += 1
