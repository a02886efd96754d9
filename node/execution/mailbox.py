"""What the peers of a session send: its sockets polled together, messages read without waiting."""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from node.execution.peer import SessionPeer
from protocol.messages import ErrorCode, ErrorReply, Received, UnknownMessageError

MAX_MESSAGES_A_TURN = 64
"""Messages of one peer that are read before the clock is looked at again: a flood must not stop the session."""


class Mailbox:
    """Used by the session's thread alone."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._peer_of_socket: dict[zmq.Socket[bytes], SessionPeer] = {}

    def wake_by(self, fd: int) -> None:
        """`wait` returns as soon as this descriptor is readable."""
        self._poller.register(fd, zmq.POLLIN)

    def add(self, peer: SessionPeer) -> None:
        """Listen to a peer."""
        for socket in peer.channel.sockets:
            self._poller.register(socket, zmq.POLLIN)
            self._peer_of_socket[socket] = peer

    def remove(self, peer: SessionPeer) -> None:
        """Listen to it no more; before its channel is closed."""
        for socket in peer.channel.sockets:
            self._poller.unregister(socket)
            del self._peer_of_socket[socket]

    def wait(self, timeout_s: float) -> list[SessionPeer]:
        """Peers of whom there is news, at the latest when the time is over."""
        events = self._poller.poll(max(0, int(timeout_s * 1000 + 0.999)))
        peers = (self._peer_of_socket[socket] for socket, _ in events if isinstance(socket, zmq.Socket))
        return list({id(peer): peer for peer in peers}.values())

    def read(self, peer: SessionPeer) -> Iterator[Received]:
        """Messages that are there, so many a turn; raises RemoteProtocolError for one that breaks the rules."""
        for _ in range(MAX_MESSAGES_A_TURN):
            try:
                received = peer.channel.receive()
            except UnknownMessageError as exc:
                peer.channel.send(ErrorReply(ErrorCode.UNIMPLEMENTED, str(exc)), exc.message_id)
                continue
            if received is None:
                return
            yield received
