"""Reads what the peers of a session send: polls all sockets together, and reads messages without waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from node.execution.peer import SessionPeer
from node.transport.poller import Descriptor, Pollable, Poller
from protocol.codec import Received, UnknownMessageError
from protocol.envelope import Frame
from protocol.message import ErrorCode, ErrorReply

MAX_MESSAGES_A_TURN = 64
"""Most messages of one peer that are read before the time is checked again: a flood must not stop the session."""


WAITED_S = 0.0001
"""A wait for messages that are there ends sooner than this."""


class Mailbox:
    """Used only by the session's thread."""

    def __init__(self) -> None:
        self._poller = Poller()
        self._peers: dict[int, SessionPeer] = {}
        """By `id`."""
        self._polled: dict[int, tuple[int, list[Pollable]]] = {}
        """By `id` of the peer: the generation of its channel, and what is polled for it."""
        self.waited_s = 0.0
        """How long the last wait took."""
        self._news: set[int] = set()
        """By `id`: peers whose connection may have changed since the last wait."""
        self._peer_of: dict[Pollable, SessionPeer] = {}

    def wake_by(self, fd: int) -> None:
        """`wait` returns as soon as this descriptor is readable."""
        self._poller.register(Descriptor(fd))

    def add(self, peer: SessionPeer) -> None:
        """Listen to a peer."""
        self._peers[id(peer)] = peer
        self._watch(peer)

    def remove(self, peer: SessionPeer) -> None:
        """Stop listening to a peer; call this before its channel is closed."""
        del self._peers[id(peer)]
        self._unwatch(peer)

    def wait(self, timeout_s: float) -> list[SessionPeer]:
        """Wait for messages, at most `timeout_s`; returns the peers that sent something."""
        for key, peer in self._peers.items():  # a reopened connection has another socket
            if self._polled[key][0] != peer.channel.generation:
                self._unwatch(peer)
                self._watch(peer)
        started = time.perf_counter()
        ready = self._poller.poll(max(0.0, timeout_s))
        self.waited_s = time.perf_counter() - started
        self._news.clear()
        peers = dict[int, SessionPeer]()
        for one in ready:
            sender = self._peer_of.get(one)
            if sender is not None:
                peers[id(sender)] = sender
                if one is not sender.channel.socket:
                    self._news.add(id(sender))
        return list(peers.values())

    @property
    def has_waited(self) -> bool:
        """Whether what the last wait found came during it; otherwise it may have come sooner."""
        return self.waited_s >= WAITED_S

    def has_news(self, peer: SessionPeer) -> bool:
        """Whether the last wait ended because the connection of a peer may have changed."""
        return id(peer) in self._news

    def _watch(self, peer: SessionPeer) -> None:
        pollables = peer.channel.pollables
        self._polled[id(peer)] = peer.channel.generation, pollables
        for one in pollables:
            self._poller.register(one)
            self._peer_of[one] = peer

    def _unwatch(self, peer: SessionPeer) -> None:
        for one in self._polled.pop(id(peer))[1]:
            self._poller.unregister(one)
            del self._peer_of[one]

    def read(self, peer: SessionPeer, first: Sequence[Frame] | None = None) -> Iterator[Received]:
        """Messages that have arrived, a limited number per turn; raises RemoteProtocolError for an invalid one.

        Args:
            first: the frames of one that was taken from its socket.
        """
        for number in range(MAX_MESSAGES_A_TURN):
            try:
                if first is not None:
                    frames, first = first, None
                    received: Received | None = peer.channel.open(frames)
                else:
                    received = peer.channel.receive(expected=number == 0)
            except UnknownMessageError as exc:
                peer.channel.send(ErrorReply(ErrorCode.UNIMPLEMENTED, str(exc)), exc.message_id)
                continue
            if received is None:
                return
            yield received
