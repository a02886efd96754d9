"""Connections of the data plane that it did not accept itself.

An *offer* is a connection that this node dialled to serve over: its peer cannot dial, or need not. A *loan* is the
other side of that: a peer has dialled in and offered its service, and a session of this process, which has sockets of
its own, reaches it by an inproc pair whose frames the data plane passes on.
"""

from __future__ import annotations

import zmq

from node.transport.outbox import send_frames
from node.transport.sockets import MAX_DATA_FRAME_BYTES, SecureContext
from protocol.identity import PeerId
from protocol.messages import Attach, encode_message

Socket = zmq.Socket[bytes]


class LentConnections:
    """Offers and loans by peer, one of each at most; their sockets are polled with those of the data plane.

    Used by the data plane's thread alone.
    """

    def __init__(self, secure: SecureContext, poller: zmq.Poller) -> None:
        self._secure = secure
        self._poller = poller
        self._offers: dict[PeerId, Socket] = {}
        self._loans: dict[PeerId, Socket] = {}
        self._monitors: dict[Socket, Socket] = {}
        """Monitor of each offer's connection; a new connection is attached anew."""

    def offer(self, peer_id: PeerId, endpoint: str) -> None:
        """Dial this peer's data plane and serve over the connection."""
        socket = self._secure.context.socket(zmq.DEALER)
        self._secure.dial(socket, peer_id, MAX_DATA_FRAME_BYTES)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.connect(endpoint)
        self._replace(self._offers, peer_id, socket)
        self._monitors[monitor] = socket
        self._poller.register(monitor, zmq.POLLIN)

    def lend(self, peer_id: PeerId, endpoint: str) -> None:
        """Give the inproc pair connected to `endpoint` the connection of a peer that has dialled in."""
        pair = self._secure.context.socket(zmq.PAIR)
        pair.bind(endpoint)
        self._replace(self._loans, peer_id, pair)

    def offered_to(self, socket: Socket) -> PeerId | None:
        """Whom this node serves over this socket."""
        return next((peer_id for peer_id, offer in self._offers.items() if offer is socket), None)

    def lent_of(self, socket: Socket) -> PeerId | None:
        """Whose connection a session has borrowed by this pair."""
        return next((peer_id for peer_id, loan in self._loans.items() if loan is socket), None)

    def borrower_of(self, peer_id: PeerId) -> Socket | None:
        """The pair of the session that has borrowed this peer's connection."""
        return self._loans.get(peer_id)

    def attach_where_connected(self, monitor: Socket) -> bool:
        """Offer the service over a connection that has just come up; False where this socket is no monitor."""
        offer = self._monitors.get(monitor)
        if offer is None:
            return False
        monitor.recv_multipart()
        send_frames(offer, encode_message(Attach(), 0))
        return True

    def close(self, linger_ms: int) -> None:
        """Close everything; frames on their way get so long."""
        for monitor, watched in self._monitors.items():
            watched.disable_monitor()
            monitor.close(linger=0)
        for socket in (*self._offers.values(), *self._loans.values()):
            socket.close(linger=linger_ms)

    def _replace(self, sockets: dict[PeerId, Socket], peer_id: PeerId, socket: Socket) -> None:
        before = sockets.pop(peer_id, None)
        if before is not None:
            self._poller.unregister(before)
            for monitor in [monitor for monitor, watched in self._monitors.items() if watched is before]:
                self._poller.unregister(monitor)
                del self._monitors[monitor]
                before.disable_monitor()
                monitor.close(linger=0)
            before.close(linger=0)
        sockets[peer_id] = socket
        self._poller.register(socket, zmq.POLLIN)
