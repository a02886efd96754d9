"""Connections of the data plane that it did not accept itself.

An *offer* is a connection that this node dialled to serve over: its peer cannot dial, or need not. A *loan* is the
other side of that: a peer has dialled in and offered its service, and a session of this process, which has sockets of
its own, reaches it by an inproc pair whose frames the data plane passes on.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from node.transport.line import Line, Socket
from node.transport.sockets import PAIR_HIGH_WATER_MARK, SecureContext, send_frames
from protocol.codec import encode_message
from protocol.identity import PeerId
from protocol.link.messages import Attach


class LentConnections:
    """Offers and loans by peer, one of each at most; their sockets are polled with those of the data plane.

    Used by the data plane's thread alone.
    """

    def __init__(self, secure: SecureContext, poller: zmq.Poller) -> None:
        self._secure = secure
        self._poller = poller
        self._offers: dict[PeerId, Line] = {}
        self._polled: dict[PeerId, tuple[int, list[Socket | int]]] = {}
        """By peer that an offer was made to: the generation of its line, and the sockets that are polled."""
        self._loans: dict[PeerId, Socket] = {}

    def offer(self, peer_id: PeerId, host: str, port: int) -> None:
        """Dial this peer's data plane and serve over the connection."""
        self.withdraw(peer_id)
        self._offers[peer_id] = Line(self._secure, self._secure.context, peer_id, host, port)
        self._polled[peer_id] = 0, []
        self.repoll()

    def withdraw(self, peer_id: PeerId) -> None:
        """Stop serving a peer over a connection that this node dialled."""
        line = self._offers.pop(peer_id, None)
        if line is not None:
            for one in self._polled.pop(peer_id)[1]:
                self._poller.unregister(one)
            line.close()

    def repoll(self) -> None:
        """Poll the sockets of lines that were made again; before every poll."""
        for peer_id, line in self._offers.items():
            generation, pollables = self._polled[peer_id]
            if generation == line.generation and pollables:
                continue
            for one in pollables:
                self._poller.unregister(one)
            self._polled[peer_id] = line.generation, line.pollables
            for one in line.pollables:
                self._poller.register(one, zmq.POLLIN)

    def lend(self, peer_id: PeerId, endpoint: str) -> None:
        """Give the inproc pair connected to `endpoint` the connection of a peer that has dialled in."""
        pair = self._secure.context.socket(zmq.PAIR)
        pair.setsockopt(zmq.SNDHWM, PAIR_HIGH_WATER_MARK)
        pair.setsockopt(zmq.RCVHWM, PAIR_HIGH_WATER_MARK)
        pair.bind(endpoint)
        before = self._loans.pop(peer_id, None)
        if before is not None:
            self._poller.unregister(before)
            before.close(linger=0)
        self._loans[peer_id] = pair
        self._poller.register(pair, zmq.POLLIN)

    def offered_to(self, socket: Socket) -> PeerId | None:
        """Whom this node serves over this socket."""
        return next((peer_id for peer_id, line in self._offers.items() if line.socket is socket), None)

    def lent_of(self, socket: Socket) -> PeerId | None:
        """Whose connection a session has borrowed by this pair."""
        return next((peer_id for peer_id, loan in self._loans.items() if loan is socket), None)

    def borrower_of(self, peer_id: PeerId) -> Socket | None:
        """The pair of the session that has borrowed this peer's connection."""
        return self._loans.get(peer_id)

    def look(self, is_heard: Callable[[PeerId], bool]) -> None:
        """Look at every line: offer the service on lines that have just come up, give up lines whose peer has
        left."""
        for peer_id, line in list(self._offers.items()):
            if line.look().up and line.socket is not None:
                send_frames(line.socket, encode_message(Attach(), 0))
            elif not line.connected and not is_heard(peer_id):
                self.withdraw(peer_id)

    def close(self, linger_ms: int) -> None:
        """Close everything; frames on their way have this long to leave."""
        for line in self._offers.values():
            line.close(linger_ms)
        for loan in self._loans.values():
            loan.close(linger=linger_ms)
