"""Looks after what this device does for others: tells the swarm when it begins or ends to compute for them, so that
nobody plans with it in vain, and drops KV caches that nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from node.serving.lending import Lending
from node.serving.spans import SpanCaches
from node.transport.control import ControlPlane

INTERVAL_S = 1.0


class LendingWatch:
    """Runs in the control plane's loop."""

    def __init__(self, lending: Lending, spans: SpanCaches | None, announce: Callable[[], None]) -> None:
        self._lending, self._spans, self._announce = lending, spans, announce

    def start(self, plane: ControlPlane) -> None:
        """Nothing to prepare."""

    async def run(self) -> None:
        """Look for ever."""
        lends = True
        while True:
            if (self._lending.refusal is None) != lends:
                lends = not lends
                self._announce()
            if self._spans is not None:
                self._spans.drop_idle()
            await asyncio.sleep(INTERVAL_S)

    async def leave(self) -> None:
        """Does nothing."""
