"""Dialling as tasks: addresses that are kept dialled, and those that are tried once.

Lives in the control plane's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from node.errors import TransportError
from node.process.endurance import endure
from node.transport.dialler import Dialler
from node.transport.link import LinkContext
from protocol.link.messages import GoAway
from protocol.message import Message
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)


class Dials:
    """Every dialler of a node and its task."""

    def __init__(self, context: LinkContext, tasks: asyncio.TaskGroup) -> None:
        self._context = context
        self._tasks = tasks
        self._diallers: set[Dialler] = set()
        self._running: set[asyncio.Task[None]] = set()

    def keep(self, address: Multiaddr) -> None:
        """Dial an address, and again whenever its link ends."""
        dialler = self._new(address, users_own=True)
        self._run(endure(f"the dialler of {address}", dialler.keep))

    def once(self, addresses: Sequence[Multiaddr], on_end: Callable[[bool], None] = lambda was_up: None) -> None:
        """Dial addresses of one peer in turn until one gave a link, and that ended; `on_end` hears if one did."""
        self._run(self._try(addresses, on_end))

    async def deliver(self, address: Multiaddr, message: Message) -> None:
        """Send one message to whoever is at an address, over a connection of its own. Raises TransportError."""
        await Dialler(self._context, address).deliver(message)

    def end(self, farewell: GoAway) -> None:
        """Say goodbye on every link that this node opened, and dial no more."""
        for dialler in self._diallers:
            dialler.say_goodbye(farewell)
        for task in self._running:
            task.cancel()

    async def _try(self, addresses: Sequence[Multiaddr], on_end: Callable[[bool], None]) -> None:
        was_up = False
        for address in addresses:
            dialler = self._new(address)
            try:
                await dialler.once()
            except TransportError as exc:
                log.debug("%s", exc)
            except Exception:  # one address must not end all other links
                log.exception("dialling %s failed", address)
            finally:
                self._diallers.discard(dialler)
            if dialler.was_up:
                was_up = True
                break
        on_end(was_up)

    def _new(self, address: Multiaddr, users_own: bool = False) -> Dialler:
        dialler = Dialler(self._context, address, users_own)
        self._diallers.add(dialler)
        return dialler

    def _run(self, job: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(job)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
