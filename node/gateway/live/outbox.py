"""Frames that wait for one client of /ws. If the client is slow, some frames are dropped; if it is too slow, it is
disconnected."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MAX_BEHIND_BYTES = 1 << 20
"""Beyond this, frames that may be dropped are dropped; beyond twice this, the client is disconnected."""


class Outbox:
    """A queue of frames in the event loop."""

    def __init__(self, on_overrun: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            on_overrun: called once, when the client must be disconnected.
        """
        self._on_overrun = on_overrun
        self._frames: deque[str] = deque()
        self._wake = asyncio.Event()
        self._num_bytes = 0
        self.overrun = False
        """Whether the client is too far behind: it is closed with 1008."""

    def put(self, frame: str, may_drop: bool = False) -> bool:
        """Queue a frame; returns whether it was accepted."""
        if self.overrun or (may_drop and self._num_bytes > MAX_BEHIND_BYTES):
            return False
        if self._num_bytes > 2 * MAX_BEHIND_BYTES:
            self.overrun = True
            self._frames.clear()
            self._on_overrun()
        else:
            self._frames.append(frame)
            self._num_bytes += len(frame)
        self._wake.set()
        return not self.overrun

    async def take(self) -> str:
        """The next frame; it counts as waiting until `sent` is called."""
        while not self._frames:
            self._wake.clear()
            await self._wake.wait()
        return self._frames[0]

    def sent(self) -> None:
        """The frame that was taken last has been sent."""
        if self._frames:
            self._num_bytes -= len(self._frames.popleft())
