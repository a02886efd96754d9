"""Passes events of generations from the engine's threads to a handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from node.engine import Engine, GenerationRequest
from node.engine.request import Completed, Event, Failed
from node.gateway.http.limits import MAX_EVENTS_BEHIND


class EventStream:
    """A queue that any thread fills and one coroutine empties."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[tuple[int, Event]] = deque()
        self._wake = asyncio.Event()

    def push(self, index: int, event: Event) -> None:
        """Add an event of one of the generations, from any thread."""
        self._events.append((index, event))
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its reader with it
            self._loop.call_soon_threadsafe(self._wake.set)

    def soon(self, call: Callable[[str], object], argument: str) -> None:
        """Call a function in the loop."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, argument)

    async def take(self, timeout_s: float | None = None) -> list[tuple[int, Event]]:
        """All waiting events, at least one, each with the index of its generation; none if the time is over first."""
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
async def generations(engine: Engine, requests: Sequence[GenerationRequest]) -> AsyncIterator[EventStream]:
    """Run requests while the block lasts. Leaving the block early, in any way, ends the work on every peer."""
    events = EventStream()
    running: dict[int, str] = {}

    def listener(index: int, request_id: str) -> Callable[[Event], None]:
        def heard(event: Event) -> None:
            if isinstance(event, Completed | Failed):
                running.pop(index, None)
            events.push(index, event)
            if events.behind and index in running:
                events.soon(engine.cancel, request_id)  # not from the engine's own thread

        return heard

    try:
        for index, request in enumerate(requests):
            running[index] = request.id
            try:
                engine.submit(request, listener(index, request.id))
            except Exception:
                del running[index]
                raise
        yield events
    finally:
        for request_id in list(running.values()):
            engine.cancel(request_id)
