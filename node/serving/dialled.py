"""Lines that the data plane dials, one for each peer, polled with its other sockets."""

from __future__ import annotations

from collections.abc import Iterator

from node.transport.line import Line, LineNews, Socket
from node.transport.poller import Pollable, Poller
from node.transport.sockets import SecureContext
from protocol.identity import PeerId


class DialledLines:
    """Used by the data plane's thread alone."""

    def __init__(self, secure: SecureContext, poller: Poller) -> None:
        self._secure, self._poller = secure, poller
        self._lines: dict[PeerId, Line] = {}
        self._polled: dict[PeerId, tuple[int, list[Pollable]]] = {}
        """By peer: the generation of its line, and the sockets that are polled."""

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[PeerId]:
        """The peer whose line is the oldest first."""
        return iter(self._lines)

    def dial(self, peer_id: PeerId, host: str, port: int) -> None:
        """Open a line to this peer's data plane, instead of the one that there is."""
        self.drop(peer_id)
        self._lines[peer_id] = Line(self._secure, self._secure.context, peer_id, host, port)
        self._polled[peer_id] = 0, []
        self.repoll()

    def drop(self, peer_id: PeerId) -> None:
        """Close the line to a peer; nothing happens where there is none."""
        line = self._lines.pop(peer_id, None)
        if line is not None:
            for one in self._polled.pop(peer_id)[1]:
                self._poller.unregister(one)
            line.close()

    def repoll(self) -> None:
        """Poll the sockets of lines that were made again; before every poll."""
        for peer_id, line in self._lines.items():
            generation, pollables = self._polled[peer_id]
            if generation == line.generation and pollables:
                continue
            for one in pollables:
                self._poller.unregister(one)
            self._polled[peer_id] = line.generation, line.pollables
            for one in line.pollables:
                self._poller.register(one)

    def of(self, peer_id: PeerId) -> Line | None:
        """The line to a peer."""
        return self._lines.get(peer_id)

    def peer_of(self, socket: Socket) -> PeerId | None:
        """To whom this socket leads."""
        return next((peer_id for peer_id, line in self._lines.items() if line.socket is socket), None)

    def look(self) -> list[tuple[PeerId, Line, LineNews]]:
        """What has happened to each line; never waits."""
        return [(peer_id, line, line.look()) for peer_id, line in self._lines.items()]

    def close(self, linger_ms: int) -> None:
        """Close all; frames on their way have this long to leave."""
        for line in self._lines.values():
            line.close(linger_ms)
