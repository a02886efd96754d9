"""Keeps what was measured of peers at intervals, so that a node that is killed loses little."""

from __future__ import annotations

import asyncio

from node.planning.planner import Planner
from node.transport.control import ControlPlane

INTERVAL_S = 600.0


class MeasuresWatch:
    """Runs in the control plane's loop."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def start(self, plane: ControlPlane) -> None:
        """Nothing to prepare."""

    async def run(self) -> None:
        """Keep them for ever, in another thread than the loop's, because writing the file may take a moment."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await asyncio.to_thread(self._planner.keep)

    async def leave(self) -> None:
        """Does nothing: the node keeps them at its end, too."""
