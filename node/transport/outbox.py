"""What a data plane sends: at once, or as soon as a peer has read what it got before."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import zmq

from protocol.identity import PeerId

log = logging.getLogger(__name__)

MAX_UNSENT = 256
"""Answers that wait until a peer reads; nothing is computed for it meanwhile, so one is a result at most."""


class Outbox:
    """Frames for peers that dialled this node. Used by the data plane's thread alone."""

    def __init__(self) -> None:
        self.router: zmq.Socket[bytes] | None = None
        """None where nobody can dial in."""
        self.unsent: dict[PeerId, deque[list[Any]]] = {}
        """By peer, what it has not read yet."""

    def send(self, peer_id: PeerId, route: bytes, frames: list[Any]) -> None:
        """Send now or later, in order; of a peer that never reads, the latest are dropped."""
        waiting = self.unsent.get(peer_id)
        if waiting is None and not self.routed([route, *frames]):
            waiting = self.unsent[peer_id] = deque()
        if waiting is not None and len(waiting) < MAX_UNSENT:
            waiting.append([route, *frames])

    def send_again(self) -> None:
        """Try what waits once more."""
        for peer_id, waiting in list(self.unsent.items()):
            while waiting and self.routed(waiting[0]):
                waiting.popleft()
            if not waiting:
                del self.unsent[peer_id]

    def routed(self, frames: list[Any]) -> bool:
        """Whether these frames need no second try: they are on their way, or their peer is gone."""
        try:
            if self.router is not None:
                self.router.send_multipart(frames, zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as exc:
            log.debug("an answer was not sent: %s", exc)
        return True


def send_frames(socket: Any, frames: list[Any]) -> bool:
    """Send without waiting; False when the peer is gone or does not read (the other side times out)."""
    try:
        socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
    except zmq.ZMQError as exc:
        log.debug("a data frame was not sent: %s", exc)
        return False
    return True
