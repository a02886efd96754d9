"""Answers that peers owe, and that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.execution.peer import SessionPeer
from protocol.message import Cancel


def abandon(peers: Sequence[SessionPeer], subject: object) -> None:
    """The answers about one subject are no longer needed: those that still come only count for measurements.

    For a peer that never answers, only the latest requests are remembered.
    """
    for peer in peers:
        for request in peer.in_flight.values():
            if request.owner.subject is subject:
                request.abandoned = True
        peer.forget_abandoned()


def cancel_requests(peers: Sequence[SessionPeer], concerned: Callable[[object], bool]) -> None:
    """Cancel the requests about some subjects at their peers, and tell their owners that no answer will come."""
    for peer in peers:
        for request in [one for one in peer.in_flight.values() if concerned(one.owner.subject)]:
            if not request.abandoned and not peer.channel.closed:
                peer.channel.send(Cancel(request.id), request.id)
            request.owner.cancelled(request)
            request.abandoned = True
        peer.forget_abandoned()
