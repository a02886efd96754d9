"""Checks at intervals which peers are connected, so that a guard's absence is known before it is needed."""

from __future__ import annotations

import asyncio

from node.guards.keeper import GuardKeeper
from node.transport.control import ControlPlane
from node.transport.registry import PeerRegistry

INTERVAL_S = 60.0


class GuardWatch:
    """Runs in the control plane's loop."""

    def __init__(self, keeper: GuardKeeper, registry: PeerRegistry) -> None:
        self._keeper = keeper
        self._registry = registry

    def start(self, plane: ControlPlane) -> None:
        """Nothing to prepare."""

    async def run(self) -> None:
        """Check for ever, in another thread than the loop's, because writing the book may take a moment."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await asyncio.to_thread(self._keeper.look, {peer.peer_id for peer in self._registry.usable()})

    async def leave(self) -> None:
        """Does nothing."""
