"""The control plane: the thread and the event loop in which links live, from the first hello to the goodbye.

It is a thread of its own so that neither generation nor the terminal ever delays a ping. It decides nothing:
`protocol.link.handshake` says what is legal, the registry holds what was learned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import zmq.asyncio

from node.process.endurance import endure
from node.transport.dials import Dials
from node.transport.link import DEFAULT_PACE, LinkContext
from node.transport.links import Links
from node.transport.listener import Listener
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from protocol.identity import PeerId, curve_public_key_of, public_key_of
from protocol.link.admission import SwarmKey
from protocol.link.hello import Hello
from protocol.link.messages import GoAway
from protocol.message import Message
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

FAREWELL_S = 0.05
"""Time for others to read our goodbye: with IMMEDIATE, a DEALER drops unread messages when its connection ends."""

MAX_HINTS_TRIED = 64
"""Most addresses of the local network that are dialled at one time."""

Bound = Future[Multiaddr | None]


class Resident(Protocol):
    """Something that lives in the control plane's loop, such as membership."""

    def start(self, plane: ControlPlane) -> None:
        """Begin, before anything is dialled or read."""

    async def run(self) -> None:
        """Work until cancelled; called again where it failed."""

    async def leave(self) -> None:
        """Say goodbye, while links are still up."""


class ControlPlane:
    """Keeps links alive and the registry true. `start` returns once the address is bound."""

    def __init__(
        self,
        secure: SecureContext,
        registry: PeerRegistry,
        hello: Callable[[], Hello],
        queued: Callable[[], int] = lambda: 0,
        on_up: Callable[[PeerId], None] = lambda peer_id: None,
        swarm: SwarmKey | None = None,
        refusal: Callable[[PeerId], str | None] = lambda peer_id: None,
        on_fault: Callable[[PeerId, str], None] = lambda peer_id, reason: None,
    ) -> None:
        sockets = zmq.asyncio.Context.shadow(secure.context)
        self.links = Links(registry)
        self._context = LinkContext(
            secure, sockets, registry, self.links, hello, queued, on_up, DEFAULT_PACE, swarm, refusal, on_fault
        )
        self._farewell = GoAway("")
        self.on_end: Callable[[BaseException], None] = lambda exc: None
        """Called, in the plane's thread, when it ends though nobody stopped it."""
        self._residents: list[Resident] = []
        self._dials: Dials | None = None
        self._hints: set[Multiaddr] = set()
        """Addresses that were found: being dialled, or of a link that stands."""
        self.address: Multiaddr | None = None
        """Address really bound; None where nobody can dial in, and before the start."""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def add(self, resident: Resident) -> None:
        """Let something live in the loop; before the start."""
        self._residents.append(resident)

    @property
    def dials(self) -> Dials:
        """For residents."""
        assert self._dials is not None, "started"
        return self._dials

    def start(self, listen: Multiaddr | None, bootstrap: Sequence[Multiaddr]) -> Multiaddr | None:
        """Bind, and dial each bootstrap address again and again; the address really bound, or None when nobody is to
        dial in.

        Raises ConfigError when the address cannot be bound.
        """
        bound: Bound = Future()
        self._thread = threading.Thread(
            target=self._main, args=(listen, list(bootstrap), bound), name="control plane", daemon=True
        )
        self._thread.start()
        return bound.result()

    def stop(self, reason: str = "the node is stopping") -> None:
        """Say goodbye on every link and end the thread."""
        if self._stop is not None and self._thread is not None:
            self._farewell = GoAway(reason)
            self.call(self._stop.set)
            self._thread.join()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call something in the loop, from any thread; nothing happens where it has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

    def dial(self, address: Multiaddr) -> None:
        """Dial an address once, from any thread, unless its peer has a link; it needs a PeerID."""
        self.call(self._dial_once, address)

    def dial_hint(self, address: Multiaddr) -> None:
        """The same for an address that comes from anybody: few at one time, since such addresses may come in a
        flood."""
        self.call(self._dial_found, address)

    def send(self, peer_id: PeerId, message: Message) -> None:
        """Send over a peer's link, from any thread, or drop it where there is none."""
        self.call(self.links.send, peer_id, message)

    def drop(self, peer_id: PeerId, reason: str) -> None:
        """End every link of a peer, and once it could read the goodbye all its connections, from any thread."""
        self.call(self._drop, peer_id, reason)

    def _drop(self, peer_id: PeerId, reason: str) -> None:
        self.links.close(peer_id, reason)
        assert self._loop is not None, "called in it"
        curve_key = curve_public_key_of(public_key_of(peer_id))
        self._loop.call_later(FAREWELL_S, self._context.secure.gate.close, curve_key)

    def _main(self, listen: Multiaddr | None, bootstrap: list[Multiaddr], bound: Bound) -> None:
        try:
            asyncio.run(self._run(listen, bootstrap, bound))
        except BaseException as exc:
            if not bound.done():
                bound.set_exception(exc)
                return
            log.exception("the control plane ended")
            self.on_end(exc)

    def _dial_once(self, address: Multiaddr, on_end: Callable[[bool], None] = lambda was_up: None) -> bool:
        """Whether it is being dialled now."""
        peer_id, own = address.peer_id, self._context.secure.identity.peer_id
        wanted = self._dials is not None and peer_id is not None and peer_id != own and peer_id not in self.links
        if wanted:
            self.dials.once([address], on_end)
        return wanted

    def _dial_found(self, address: Multiaddr) -> None:
        linked = self.links.peers
        tried = [hint for hint in self._hints if hint.peer_id not in linked]
        if address in tried or len(tried) >= MAX_HINTS_TRIED:
            return
        if self._dial_once(address, lambda was_up: self._hints.discard(address)):
            self._hints.add(address)

    async def _run(self, listen: Multiaddr | None, bootstrap: list[Multiaddr], bound: Bound) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listener = Listener(self._context)
        try:
            self.address = None if listen is None else listener.bind(listen)
            for resident in self._residents:
                resident.start(self)
            async with asyncio.TaskGroup() as tasks:
                self._dials = Dials(self._context, tasks)
                bound.set_result(self.address)
                own = self._context.secure.identity.peer_id
                for address in bootstrap:
                    if address.peer_id != own:  # a node may be told its own address: it was in its own invitation
                        self._dials.keep(address)
                works = [(type(resident).__name__, resident.run) for resident in self._residents]
                if listen is not None:
                    works += [("the listener", listener.serve), ("the listener's clock", listener.expire)]
                running = [tasks.create_task(endure(part, work)) for part, work in works]
                await self._stop.wait()
                for resident in self._residents:
                    try:
                        await resident.leave()
                    except Exception:  # the others say goodbye all the same
                        log.exception("%s failed to leave", type(resident).__name__)
                listener.say_goodbye(self._farewell)
                self._dials.end(self._farewell)
                for task in running:
                    task.cancel()
        finally:
            await asyncio.sleep(FAREWELL_S if listener.has_links else 0)
            listener.close()
