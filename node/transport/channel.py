"""A session's connection to one peer's data plane, owned by the thread that generates.

A direct channel dials; a borrowed one goes through this node's data plane to a peer that attached itself. Both look
the same to the session: `send`, `receive` and sockets to poll.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from node.transport.data import DataPlane
from node.transport.outbox import send_frames
from node.transport.registry import ConnectedPeer, PeerRegistry
from node.transport.sockets import MAX_DATA_FRAME_BYTES, SecureContext
from protocol.envelope import Frame
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.messages import Message, Received, decode_message, encode_message

_names = itertools.count(1)
FAREWELL_MS = 200
"""Time for last cancellations to leave when a channel is closed."""


class Channel:
    """Frames to and from one peer; counts the bytes of both directions."""

    def __init__(self, peer_id: PeerId, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes] | None) -> None:
        self.peer_id = peer_id
        self.socket = socket
        self._monitor = monitor
        self.connected = monitor is None
        self.bytes_up = 0
        self.bytes_down = 0

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """What to poll for input."""
        return [self.socket] if self._monitor is None else [self.socket, self._monitor]

    @property
    def closed(self) -> bool:
        """Whether this side has hung up."""
        return self.socket.closed

    def send(self, message: Message, message_id: int) -> bool:
        """Send now or not at all; False where the peer cannot take it."""
        frames = encode_message(message, message_id)
        if not send_frames(self.socket, list(frames)):
            return False
        self.bytes_up += num_bytes(frames)
        return True

    def receive(self) -> Received | None:
        """Next message, or None; raises RemoteProtocolError for one that breaks the rules."""
        try:
            frames: list[Any] = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        buffers = [frame.buffer for frame in frames]
        self.bytes_down += num_bytes(buffers)
        return decode_message(buffers, MAX_DATA_HEADER_BYTES)

    def notice_losses(self) -> int:
        """How often the connection broke since the last look."""
        losses = 0
        while self._monitor is not None:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                break
            self.connected = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            losses += not self.connected
        return losses

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the connection stands before the time is over."""
        deadline = time.monotonic() + timeout_s
        while not self.connected and (left_s := deadline - time.monotonic()) > 0:
            if self._monitor is not None and self._monitor.poll(max(1, int(left_s * 1000))):
                self.notice_losses()
        return self.connected

    def close(self) -> None:
        """End the connection; what was sent last still has a moment to leave. A second call does nothing."""
        if self.socket.closed:
            return
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
        self.socket.close(linger=FAREWELL_MS)


def num_bytes(frames: list[Frame]) -> int:
    """Payload bytes of a message (33 bytes a frame of CurveZMQ and the TCP headers come on top)."""
    return sum(len(frame) for frame in frames)


def open_channel(secure: SecureContext, registry: PeerRegistry, plane: DataPlane, peer: ConnectedPeer) -> Channel:
    """A channel to a usable peer: by dialling it where it listens, else over the connection it attached."""
    if peer.data_endpoint is not None:
        socket = secure.context.socket(zmq.DEALER)
        secure.dial(socket, peer.peer_id, MAX_DATA_FRAME_BYTES)
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.connect(peer.data_endpoint)
        return Channel(peer.peer_id, socket, monitor)
    pair = secure.context.socket(zmq.PAIR)
    endpoint = f"inproc://session-{next(_names)}"
    pair.connect(endpoint)  # before the plane binds: what is sent at once waits in the pair
    plane.borrow(peer.peer_id, endpoint)
    return Channel(peer.peer_id, pair, None)
