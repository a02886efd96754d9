"""Every open link, by peer: what to send over, and who is told when links open, speak and end.

Links are symmetric: it does not matter who dialled. Lives in the control plane's loop.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection
from typing import Protocol

from node.transport.log_limit import LogLimit
from node.transport.registry import ConnectedPeer, PeerRegistry, are_two_devices
from protocol.codec import Received
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId, curve_public_key_of, public_key_of
from protocol.message import Message

log = logging.getLogger(__name__)

GOODBYE_S = 2.0
"""Pause between the goodbyes that a node says on its links."""
TWO_DEVICES_S = 10.0
"""Links to different processes of one peer that stand together for so long: twice the silence that ends a link."""
FIRST_MESSAGE_ID = 1 << 32
"""Ids below are the pings' of the links themselves."""


class Link(Protocol):
    """One connection on which both sides have said hello."""

    @property
    def peer_id(self) -> PeerId: ...

    @property
    def host(self) -> str:
        """Where it leads, in ZeroMQ's form."""

    @property
    def dialled(self) -> bool:
        """Whether this node opened it."""

    def send(self, message: Message, message_id: int) -> bool:
        """Send without waiting, or drop the message."""

    def close(self, reason: str) -> None:
        """Say goodbye and end it."""


class LinkWatcher(Protocol):
    """What a watcher of links is told."""

    def link_up(self, link: Link) -> None: ...

    def link_down(self, peer_id: PeerId) -> None:
        """The last link to a peer is gone."""

    def heard(self, link: Link, received: Received) -> None:
        """Any message came from a peer."""


Handler = Callable[[Link, Received], None]


class Links:
    """The open links of a node."""

    def __init__(self, registry: PeerRegistry) -> None:
        self._registry = registry
        self._open: dict[PeerId, dict[Link, ConnectedPeer]] = {}
        """The hello of each link: of two links of one peer, either may end first."""
        self._goodbyes: dict[PeerId, float] = {}
        """When a peer that still has another link said goodbye over one."""
        self._doubts: dict[PeerId, float] = {}
        """Since when links of a peer seem to lead to two devices."""
        self._handlers: dict[type[object], Handler] = {}
        self._watchers: list[LinkWatcher] = []
        self._complaints = LogLimit(log)
        self._ids = itertools.count(FIRST_MESSAGE_ID)

    def watch(self, watcher: LinkWatcher) -> None:
        """Tell `watcher` of every link from now on."""
        self._watchers.append(watcher)

    def handle(self, kind: type[object], handler: Handler) -> None:
        """Give every message of a class to one handler. A RemoteProtocolError that it raises is logged."""
        assert kind not in self._handlers, f"{kind.__name__} has a handler"
        self._handlers[kind] = handler

    def __contains__(self, peer_id: PeerId) -> bool:
        return peer_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    @property
    def peers(self) -> set[PeerId]:
        """Peers that have a link."""
        return set(self._open)

    def peer(self, peer_id: PeerId) -> ConnectedPeer | None:
        """What a peer's last hello said."""
        return next((peer for peer in self._registry.peers() if peer.peer_id == peer_id), None)

    def up(self, link: Link, peer: ConnectedPeer) -> bool:
        """A hello was accepted (again); False where the registry knows its key under another identity."""
        if not self._registry.up(peer):
            return False
        links = self._open.setdefault(link.peer_id, {})
        links[link] = peer
        if _are_two(links.values()):
            self._doubts.setdefault(link.peer_id, time.monotonic())
        for watcher in self._watchers:
            watcher.link_up(link)
        return True

    def down(self, link: Link) -> None:
        """A link is gone; a second call does nothing."""
        links, peer_id = self._open.get(link.peer_id, {}), link.peer_id
        if link not in links:
            return
        del links[link]
        self._registry.on_link_end()
        if not _are_two(links.values()):
            self._doubts.pop(peer_id, None)
            self._registry.doubled(peer_id, ())
        if links:
            self._registry.stays(next((peer for peer in links.values() if peer.dialled), [*links.values()][-1]))
            return
        del self._open[peer_id]
        if time.monotonic() - self._goodbyes.pop(peer_id, float("-inf")) < GOODBYE_S:
            self._registry.leave(peer_id)
        self._registry.down(peer_id)
        for watcher in self._watchers:
            watcher.link_down(peer_id)

    def goodbye(self, link: Link) -> None:
        """A peer says that it leaves. It says so on every link: while another stands, it is this one that ends, of a
        dial-back or of another device with the same identity."""
        if len(self._open.get(link.peer_id, {}).keys() - {link}) == 0:
            self._registry.leave(link.peer_id)
        else:
            self._goodbyes[link.peer_id] = time.monotonic()

    def received(self, link: Link, received: Received) -> None:
        """A message that is not the link's own business came."""
        if link.peer_id in self._doubts:
            self._look_for_two(link.peer_id)
        for watcher in self._watchers:
            watcher.heard(link, received)
        handler = self._handlers.get(type(received.message))
        if handler is None:
            return
        try:
            handler(link, received)
        except RemoteProtocolError as exc:
            self._complaints.warning("a message of %s was dropped: %s", link.peer_id, exc)

    def send(self, peer_id: PeerId, message: Message, message_id: int | None = None) -> int | None:
        """Send over any link of a peer; the id it went under, or None where there is no link that takes it."""
        number = next(self._ids) if message_id is None else message_id
        for link in self._open.get(peer_id, ()):
            if link.send(message, number):
                return number
        return None

    def _look_for_two(self, peer_id: PeerId) -> None:
        """Links of a process that ended fall silent and are gone sooner than this."""
        if time.monotonic() - self._doubts[peer_id] < TWO_DEVICES_S:
            return
        del self._doubts[peer_id]
        hosts = tuple(dict.fromkeys(peer.host for peer in self._open[peer_id].values()))
        self._registry.doubled(peer_id, hosts)
        log.error(
            "two devices have the identity %s, at %s: its data directory was copied; stop one of them, and start it "
            "with a new --data-dir, which gives it an identity of its own",
            peer_id,
            " and ".join(hosts),
        )

    def measured(self, peer_id: PeerId, rtt_s: float) -> None:
        """A ping of somebody else than the link itself came back."""
        self._registry.measured(peer_id, rtt_s)

    def close(self, peer_id: PeerId, reason: str) -> None:
        """End every link of a peer that is not wanted any more; its requests are answered no longer from now on."""
        other = self._registry.by_curve_key(curve_public_key_of(public_key_of(peer_id)))
        for identity in {peer_id, peer_id if other is None else other.peer_id}:  # a key has two, and one is here
            self._registry.expel(identity)
            for link in list(self._open.get(identity, ())):
                link.close(reason)


def _are_two(peers: Collection[ConnectedPeer]) -> bool:
    """Whether these links of one identity lead to more than one device."""
    return any(are_two_devices(one.hello, other.hello) for one, other in itertools.combinations(peers, 2))
