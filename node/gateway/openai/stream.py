"""Passes events of one generation from the engine's thread to a handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

from node.engine import Engine, GenerationRequest
from node.engine.request import Completed, Event, Failed
from node.gateway.http.limits import MAX_EVENTS_BEHIND


class EventStream:
    """A queue that any thread fills and one coroutine empties."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()

    def push(self, event: Event) -> None:
        """Add an event, from any thread."""
        self._events.append(event)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its reader with it
            self._loop.call_soon_threadsafe(self._wake.set)

    def soon(self, call: Callable[[str], object], argument: str) -> None:
        """Call a function in the loop."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, argument)

    async def take(self, timeout_s: float | None = None) -> list[Event]:
        """All waiting events, at least one; an empty list if the time is over first."""
        if not self._events:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        return [self._events.popleft() for _ in range(len(self._events))]

    @property
    def behind(self) -> bool:
        """Whether the reader is so slow that it counts as gone."""
        return len(self._events) > MAX_EVENTS_BEHIND


@contextlib.asynccontextmanager
async def generation(engine: Engine, request: GenerationRequest) -> AsyncIterator[EventStream]:
    """Run a request while the block lasts. Leaving the block early, in any way, ends the work on every peer."""
    events = EventStream()
    over = False

    def heard(event: Event) -> None:
        nonlocal over
        over = over or isinstance(event, Completed | Failed)
        events.push(event)
        if events.behind and not over:
            events.soon(engine.cancel, request.id)  # not from the engine's own thread

    engine.submit(request, heard)
    try:
        yield events
    finally:
        if not over:
            engine.cancel(request.id)
