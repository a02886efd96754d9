"""The control plane: the thread and the event loop in which links live, from the first hello to the goodbye.

It is a thread of its own so that neither generation nor the terminal ever delays a ping. It decides nothing:
`protocol.handshake` says what is legal, the registry holds what was learned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

import zmq.asyncio

from node.transport.dialler import Dialler
from node.transport.link import DEFAULT_PACE, LinkContext
from node.transport.listener import Listener
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from protocol.admission import SwarmKey
from protocol.identity import PeerId
from protocol.messages import GoAway, Hello
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

FAREWELL_S = 0.05
"""Time for others to read our goodbye: with IMMEDIATE a DEALER drops what was not read when its connection ends."""

Bound = Future[Multiaddr | None]


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
    ) -> None:
        sockets = zmq.asyncio.Context.shadow(secure.context)
        self._context = LinkContext(secure, sockets, registry, hello, queued, on_up, DEFAULT_PACE, swarm)
        self._farewell = GoAway("")
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self, listen: Multiaddr | None, bootstrap: list[Multiaddr]) -> Multiaddr | None:
        """Bind and dial; the address really bound, or None when nobody is to dial in.

        Raises ConfigError when the address cannot be bound.
        """
        bound: Bound = Future()
        self._thread = threading.Thread(
            target=self._main, args=(listen, bootstrap, bound), name="control plane", daemon=True
        )
        self._thread.start()
        return bound.result()

    def stop(self, reason: str = "the node is stopping") -> None:
        """Say goodbye on every link and end the thread."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._farewell = GoAway(reason)
            with contextlib.suppress(RuntimeError):  # the loop is closed where the plane ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _main(self, listen: Multiaddr | None, bootstrap: list[Multiaddr], bound: Bound) -> None:
        try:
            asyncio.run(self._run(listen, bootstrap, bound))
        except BaseException as exc:
            if bound.done():
                log.exception("the control plane ended")
            else:
                bound.set_exception(exc)

    async def _run(self, listen: Multiaddr | None, bootstrap: list[Multiaddr], bound: Bound) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listener = Listener(self._context)
        diallers = [Dialler(self._context, address, listener.holds) for address in bootstrap]
        try:
            address = None if listen is None else listener.bind(listen)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(dialler.keep()) for dialler in diallers]
                if listen is not None:
                    running += [tasks.create_task(listener.serve()), tasks.create_task(listener.expire())]
                bound.set_result(address)
                await self._stop.wait()
                listener.say_goodbye(self._farewell)
                for dialler in diallers:
                    dialler.say_goodbye(self._farewell)
                for task in running:
                    task.cancel()
        finally:
            await asyncio.sleep(FAREWELL_S if listener.has_links else 0)
            listener.close()
