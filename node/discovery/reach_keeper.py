"""Finds out at which addresses others can dial this node, and helps others to do the same.

It runs in the control plane's loop and decides nothing: `protocol.finding.reachability` says what to ask and what an
answer proves, and `protocol.finding.dialback` says which addresses may be dialled for a peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from node.discovery.addresses import is_loopback
from node.errors import TransportError
from node.transport.control import ControlPlane
from node.transport.link import new_nonce
from node.transport.links import Link
from protocol.codec import Received
from protocol.errors import RemoteProtocolError
from protocol.finding.dialback import DialBack, DialBackResult, DialBackServer, DialBackStatus, dialable
from protocol.finding.reachability import Reachability
from protocol.identity import PeerId
from protocol.limits import MAX_ADDRESSES
from protocol.message import ErrorCode, ErrorReply
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
LOOK_EVERY = 5
"""The interfaces are checked again after so many intervals."""
MAX_ASKS = 4
"""Most requests that are sent in one interval."""


class ReachKeeper:
    """Keeps the addresses that this node's record may name, `addresses`, which any thread may read.

    Args:
        listening: gives the addresses of this device's interfaces on which the node listens now.
        announced: addresses that the user gave.
        changed: called in the loop when `addresses` have changed.
    """

    def __init__(
        self,
        listening: Callable[[], Sequence[Multiaddr]],
        announced: Sequence[Multiaddr],
        changed: Callable[[], None],
    ) -> None:
        self._listening = listening
        self._announced = tuple(announced)
        self._changed = changed
        self._reach = Reachability()
        self._server = DialBackServer()
        self._plane: ControlPlane | None = None
        self._sent: dict[int, PeerId] = {}
        self._wake = asyncio.Event()
        self._coming_back: set[asyncio.Task[None]] = set()
        self.addresses: tuple[Multiaddr, ...] = self._announced
        self.unconfirmed: tuple[Multiaddr, ...] = ()
        """Addresses of this device through which no peer has come in yet."""

    def start(self, plane: ControlPlane) -> None:
        self._plane = plane
        plane.links.watch(self)
        plane.links.handle(DialBack, self._asked)
        plane.links.handle(DialBackResult, self._told)
        self._look()

    async def run(self) -> None:
        """Check the interfaces at intervals, and send the requests that are due."""
        round_number = 0
        while True:
            self._ask()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._wake.wait()
            round_number += 1
            if round_number % LOOK_EVERY == 0:
                self._look()

    async def leave(self) -> None:
        for task in self._coming_back:
            task.cancel()

    # --- as a watcher of links

    def link_up(self, link: Link) -> None:
        assert self._plane is not None, "started"
        address, peer = self._plane.address, self._plane.links.peer(link.peer_id)
        if address is None or peer is None:
            return
        self._reach.seen_at(time.monotonic(), link.peer_id, peer.hello.observed, address.port, not link.dialled)
        self._update()
        self._wake.set()

    def link_down(self, peer_id: PeerId) -> None:
        self._reach.gone(peer_id)

    def heard(self, link: Link, received: Received) -> None:
        if isinstance(received.message, ErrorReply) and self._sent.pop(received.id, None) == link.peer_id:
            is_busy = received.message.code == ErrorCode.EXHAUSTED
            self._reach.refused(time.monotonic(), link.peer_id, is_busy)

    # --- for this node

    def _look(self) -> None:
        """Read the addresses of the interfaces, which may have changed."""
        self._reach.listening([_plain(address) for address in self._listening() if not is_loopback(address)])
        self._update()

    def _ask(self) -> None:
        assert self._plane is not None, "started"
        now = time.monotonic()
        self._reach.expire(now)
        for ask in self._reach.due(now, [new_nonce() for _ in range(MAX_ASKS)]):
            number = self._plane.links.send(ask.peer, ask.request)
            if number is not None:
                self._sent[number] = ask.peer
        while len(self._sent) > MAX_ADDRESSES * MAX_ASKS:
            del self._sent[next(iter(self._sent))]
        self._update()

    def _told(self, link: Link, received: Received) -> None:
        """A nonce that arrives over a new link proves an address; an answer to a request counts only if it reports
        failure."""
        message, now = received.message, time.monotonic()
        assert isinstance(message, DialBackResult)
        is_answer = self._sent.pop(received.id, None) == link.peer_id
        if is_answer and message.status is DialBackStatus.UNREACHABLE:
            self._reach.failed(now, link.peer_id, message.nonce)
        elif not is_answer and not link.dialled:
            self._reach.arrived(now, link.peer_id, message.nonce)
        self._update()

    def _update(self) -> None:
        confirmed = self._reach.confirmed()
        # A node that listens only on loopback can be found only on this device.
        local = [_plain(address) for address in self._listening()]
        trusted = local if local and all(map(is_loopback, local)) else []
        addresses = tuple(dict.fromkeys([*self._announced, *confirmed, *trusted]))[:MAX_ADDRESSES]
        self.unconfirmed = self._reach.unconfirmed()
        if addresses != self.addresses:
            for address in addresses:
                if address in confirmed and address not in self.addresses:
                    log.info("others can dial this node at %s", address)
            self.addresses = addresses
            self._changed()

    # --- for others

    def _asked(self, link: Link, received: Received) -> None:
        assert self._plane is not None and isinstance(received.message, DialBack)
        request, peer_id = received.message, link.peer_id
        try:
            address = dialable(request, peer_id, link.host)
        except RemoteProtocolError as exc:
            link.send(ErrorReply(ErrorCode.INVALID, str(exc)), received.id)
            return
        if not self._server.admit(time.monotonic(), peer_id):
            link.send(ErrorReply(ErrorCode.EXHAUSTED, "asked too often"), received.id)
            return
        task = asyncio.get_running_loop().create_task(self._come_back(link, received.id, address, request.nonce))
        self._coming_back.add(task)
        task.add_done_callback(self._coming_back.discard)

    async def _come_back(self, link: Link, number: int, address: Multiaddr, nonce: bytes) -> None:
        assert self._plane is not None
        try:
            await self._plane.dials.deliver(address, DialBackResult(nonce, DialBackStatus.REACHED))
            status = DialBackStatus.REACHED
        except TransportError as exc:
            log.debug("no dial-back: %s", exc)
            status = DialBackStatus.UNREACHABLE
        finally:
            self._server.done(link.peer_id)
        link.send(DialBackResult(nonce, status), number)


def _plain(address: Multiaddr) -> Multiaddr:
    """The address without the PeerID, which this node's own record already states."""
    return replace(address, peer_id=None)
