"""Connections of the data plane that it did not accept itself.

An *offer* is a connection that this node dialled to serve over: its peer cannot dial, or need not. A *loan* is the
other side of that: a peer has dialled in and offered its service, and a session of this process, which has sockets of
its own, reaches it by an inproc pair whose frames the data plane passes on.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from node.serving.dialled import DialledLines
from node.transport.line import Socket
from node.transport.poller import Poller
from node.transport.sockets import PAIR_HIGH_WATER_MARK, SecureContext, send_frames
from protocol.codec import encode_message
from protocol.identity import PeerId
from protocol.link.messages import Attach


class LentConnections:
    """Offers and loans by peer, one of each at most; their sockets are polled with those of the data plane.

    Used by the data plane's thread alone.
    """

    def __init__(self, secure: SecureContext, poller: Poller) -> None:
        self._secure = secure
        self._poller = poller
        self._offers = DialledLines(secure, poller)
        self._loans: dict[PeerId, Socket] = {}

    def offer(self, peer_id: PeerId, host: str, port: int) -> None:
        """Dial this peer's data plane and serve over the connection."""
        self._offers.dial(peer_id, host, port)

    def repoll(self) -> None:
        """Poll the sockets of lines that were made again; before every poll."""
        self._offers.repoll()

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
        self._poller.register(pair)

    def offered_to(self, socket: Socket) -> PeerId | None:
        """Whom this node serves over this socket."""
        return self._offers.peer_of(socket)

    def lent_of(self, socket: Socket) -> PeerId | None:
        """Whose connection a session has borrowed by this pair."""
        return next((peer_id for peer_id, loan in self._loans.items() if loan is socket), None)

    def borrower_of(self, peer_id: PeerId) -> Socket | None:
        """The pair of the session that has borrowed this peer's connection."""
        return self._loans.get(peer_id)

    def look(self, is_heard: Callable[[PeerId], bool]) -> None:
        """Look at every line: offer the service on lines that have just come up, give up lines whose peer has
        left."""
        for peer_id, line, news in self._offers.look():
            if news.up and line.socket is not None:
                send_frames(line.socket, encode_message(Attach(), 0))
            elif not line.connected and not is_heard(peer_id):
                self._offers.drop(peer_id)

    def close(self, linger_ms: int) -> None:
        """Close everything; frames on their way have this long to leave."""
        self._offers.close(linger_ms)
        for loan in self._loans.values():
            loan.close(linger=linger_ms)
