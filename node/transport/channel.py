"""A session's connection to one peer's data plane, owned by the thread that generates.

A dialled channel is a line of its own; a borrowed one goes through this node's data plane to a peer that attached
itself. Both look the same to the session: `send`, `receive`, `notice_losses` and what to poll.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Protocol

import zmq

from node.transport.callers import FRAME_OVERHEAD_BYTES
from node.transport.line import Line, Socket
from node.transport.poller import Pollable, Poller
from node.transport.registry import ConnectedPeer
from node.transport.sockets import PAIR_HIGH_WATER_MARK, SecureContext, receive_frames, send_frames
from protocol.codec import Received, decode_message, encode_message
from protocol.envelope import Frame
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.message import Message

_names = itertools.count(1)
MAX_UNASKED_BYTES = 32 << 20
"""Most bytes that a peer may send beyond what it owes: answers that came too late and were forgotten."""
FAREWELL_MS = 200
"""Time for last cancellations to leave when a channel is closed."""


class Lender(Protocol):
    """Whoever owns the connections of peers that dialled in."""

    def borrow(self, peer_id: PeerId, endpoint: str) -> None:
        """Join the inproc pair connected to `endpoint` with this peer's connection."""


class Channel:
    """Frames to and from one peer over a line of its own, or over a pair that was borrowed; counts the bytes."""

    def __init__(self, peer_id: PeerId, way: Line | Socket) -> None:
        self.peer_id = peer_id
        self._line = way if isinstance(way, Line) else None
        self._pair = None if isinstance(way, Line) else way
        self.bytes_up = 0
        self.bytes_down = 0
        self._read_bytes = 0
        """What was read over the connection that stands, no less than it came as."""

    @property
    def socket(self) -> Socket | None:
        """The socket that it sends over now; None while there is no connection."""
        return self._pair if self._line is None else self._line.socket

    @property
    def is_borrowed(self) -> bool:
        """Whether it goes over a connection that the peer attached, and may replace by another."""
        return self._line is None

    @property
    def connected(self) -> bool:
        """Whether the connection stands."""
        return self._line is None or self._line.connected

    @property
    def pollables(self) -> list[Pollable]:
        """What to poll for input."""
        if self._line is not None:
            return self._line.pollables
        return [] if self._pair is None else [self._pair]

    @property
    def generation(self) -> int:
        """Grows whenever `pollables` changes."""
        return 0 if self._line is None else self._line.generation

    @property
    def closed(self) -> bool:
        """Whether this side has hung up."""
        return self._line.closed if self._line is not None else self._pair is None or self._pair.closed

    def send(self, message: Message, message_id: int) -> bool:
        """Send without waiting; returns False where the peer cannot take the message."""
        frames, socket = encode_message(message, message_id), self.socket
        if socket is None or not send_frames(socket, frames):
            return False
        self.gave(num_bytes(frames))
        return True

    def receive(self, expected: bool = False) -> Received | None:
        """Next message, or None; raises RemoteProtocolError for one that breaks the rules.

        Args:
            expected: whether a poll has just found one.
        """
        socket = self.socket
        if socket is None:
            return None
        frames = receive_frames(socket, expected)
        return None if frames is None else self.open([frame.buffer for frame in frames])

    def open(self, frames: Sequence[Frame]) -> Received:
        """The message in frames that were read from the socket; raises as `receive`."""
        self.took(num_bytes(frames), len(frames))
        return decode_message(frames, MAX_DATA_HEADER_BYTES)

    def gave(self, size: int) -> None:
        """Count bytes that were given to the socket."""
        self.bytes_up += size

    def took(self, size: int, num_frames: int) -> None:
        """Count bytes that were read from the socket."""
        self.bytes_down += size
        self._read_bytes += size + FRAME_OVERHEAD_BYTES * num_frames

    def notice_losses(self) -> int:
        """How often the connection broke since the last look; it is being made again."""
        if self._line is None:
            return 0
        news = self._line.look()
        if news.losses:
            self._read_bytes = 0
        return news.losses

    def is_overfull(self, owed_bytes: int) -> bool:
        """Whether the peer has sent more, unread, than it owes and some: libzmq gives no message before its last
        frame, and does not bound their number."""
        received = None if self._line is None else self._line.num_bytes_received()
        return received is not None and received - self._read_bytes > owed_bytes + MAX_UNASKED_BYTES

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the connection stands before the time is over."""
        deadline = time.monotonic() + timeout_s
        while not self.connected and (left_s := deadline - time.monotonic()) > 0:
            poller = Poller()
            for one in self.pollables:
                poller.register(one)
            if poller.poll(left_s):
                self.notice_losses()
        return self.connected

    def close(self) -> None:
        """End the connection; what was sent last still has a moment to leave. A second call does nothing."""
        if self._line is not None:
            self._line.close(FAREWELL_MS)
        elif self._pair is not None and not self._pair.closed:
            self._pair.close(linger=FAREWELL_MS)


def num_bytes(frames: Sequence[Frame]) -> int:
    """Payload bytes of a message (33 bytes a frame of CurveZMQ and the TCP headers come on top)."""
    return sum(map(len, frames))


def open_channel(secure: SecureContext, lender: Lender, peer: ConnectedPeer) -> Channel:
    """A channel to a usable peer: by dialling it where it listens, else over the connection it attached."""
    if peer.hello.data_port:
        return Channel(peer.peer_id, Line(secure, secure.context, peer.peer_id, peer.host, peer.hello.data_port))
    pair = secure.context.socket(zmq.PAIR)
    pair.setsockopt(zmq.SNDHWM, PAIR_HIGH_WATER_MARK)
    pair.setsockopt(zmq.RCVHWM, PAIR_HIGH_WATER_MARK)
    endpoint = f"inproc://session-{next(_names)}"
    pair.connect(endpoint)  # before the lender binds: what is sent at once waits in the pair
    lender.borrow(peer.peer_id, endpoint)
    return Channel(peer.peer_id, pair)
