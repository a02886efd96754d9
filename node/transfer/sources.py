"""Connections to the peers that blobs are fetched from.

They have their own ZeroMQ context, so that pieces never delay a chunk in the same I/O thread.
"""

from __future__ import annotations

from collections.abc import Iterable

import zmq
from msgspec import Struct

from node.errors import TransportError
from node.process.descriptors import can_open
from node.transport.channel import Channel
from node.transport.line import Line
from node.transport.poller import Poller
from node.transport.registry import ConnectedPeer
from node.transport.sockets import SecureContext
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.message import Message

MAX_SOURCES = 16
"""Most peers that one fetch uses at a time."""
MAX_MESSAGES_A_TURN = 32
NEEDED_DESCRIPTORS = 32
"""More than a context with its first connections opens."""


class Up(Struct, frozen=True):
    """A connection is up."""

    peer_id: PeerId


class Down(Struct, frozen=True):
    """A connection is down; it may come back."""

    peer_id: PeerId


class Got(Struct, frozen=True):
    """A message has come."""

    peer_id: PeerId
    message_id: int
    message: Message


class Broke(Struct, frozen=True):
    """Something invalid has come."""

    peer_id: PeerId
    reason: str


Event = Up | Down | Got | Broke


class Sources:
    """Data connections of one fetch, used only by its thread. A context manager."""

    def __init__(self, secure: SecureContext) -> None:
        """Raises TransportError where the process can open hardly any more files and connections."""
        if not can_open(NEEDED_DESCRIPTORS):  # libzmq aborts the process where a new context finds none (epoll.cpp)
            raise TransportError("too many files and connections are open to fetch anything now; try again later")
        self._secure = secure
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._channels: dict[PeerId, Channel] = {}

    def close(self) -> None:
        """End every connection."""
        for peer_id in list(self._channels):
            self._close(peer_id)
        self._context.destroy(linger=0)

    def use(self, peers: Iterable[ConnectedPeer]) -> list[PeerId]:
        """Connect to these peers and no others, if they can be dialled; returns the peers that were disconnected."""
        wanted = {peer.peer_id: peer for peer in list(peers)[:MAX_SOURCES] if peer.hello.data_port}
        left = [peer_id for peer_id in self._channels if peer_id not in wanted]
        for peer_id in left:
            self._close(peer_id)
        for peer_id, peer in wanted.items():
            if peer_id not in self._channels:
                self._dial(peer)
        return left

    def send(self, peer_id: PeerId, message_id: int, message: Message) -> bool:
        """Send a message; returns whether the connection took it."""
        channel = self._channels.get(peer_id)
        return channel is not None and channel.send(message, message_id)

    def poll(self, timeout_s: float) -> list[Event]:
        """The events that have come, in order for each connection."""
        poller = Poller()
        for channel in self._channels.values():
            for one in channel.pollables:
                poller.register(one)
        if not poller.poll(max(0.0, timeout_s)):
            return []
        return [event for peer_id, channel in self._channels.items() for event in _events_of(peer_id, channel)]

    def _dial(self, peer: ConnectedPeer) -> None:
        line = Line(self._secure, self._context, peer.peer_id, peer.host, peer.hello.data_port)
        self._channels[peer.peer_id] = Channel(peer.peer_id, line)

    def _close(self, peer_id: PeerId) -> None:
        self._channels.pop(peer_id).close()


def _events_of(peer_id: PeerId, channel: Channel) -> list[Event]:
    events: list[Event] = []
    was_connected = channel.connected
    losses = channel.notice_losses()
    if was_connected and losses:
        events.append(Down(peer_id))
    if channel.connected and (losses or not was_connected):
        events.append(Up(peer_id))
    for _ in range(MAX_MESSAGES_A_TURN):
        try:
            received = channel.receive()
        except RemoteProtocolError as exc:
            events.append(Broke(peer_id, str(exc)))
            break
        if received is None:
            break
        events.append(Got(peer_id, received.id, received.message))
    return events
