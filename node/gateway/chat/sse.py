"""Server-sent events to a reader that may be slow, or gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from node.gateway.http.app import json_text
from node.gateway.http.limits import KEEP_ALIVE_S, WRITE_LIMIT_S

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def frame(value: dict[str, Any]) -> bytes:
    """One event."""
    return f"data: {json_text(value)}\n\n".encode()


def named_frames(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """Events with names: each object's `type`."""
    return [f"event: {event['type']}\ndata: {json_text(event)}\n\n".encode() for event in events]


class EventWriter:
    """A streaming response. It sends something every ten seconds, so that no proxy on the way times out."""

    def __init__(
        self, request: web.Request, content_type: str = "text/event-stream", keep_alive: bytes = KEEP_ALIVE
    ) -> None:
        self._request = request
        self._keep_alive = keep_alive
        self._written_at = 0.0
        self._response = web.StreamResponse(
            headers={
                "Content-Type": f"{content_type}; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            }
        )

    async def open(self) -> None:
        """Send the head."""
        await self._response.prepare(self._request)
        self._written_at = time.monotonic()

    @property
    def due_s(self) -> float:
        """Seconds until something must be sent."""
        return max(0.0, self._written_at + KEEP_ALIVE_S - time.monotonic())

    async def write(self, frames: Sequence[bytes]) -> None:
        """Send events in one piece; if there are none and it is time, send a comment. Raises TimeoutError if the
        reader takes nothing."""
        if not frames and self.due_s > 0:
            return
        async with asyncio.timeout(WRITE_LIMIT_S):
            await self._response.write(b"".join(frames) or self._keep_alive)
        self._written_at = time.monotonic()

    async def close(self) -> web.StreamResponse:
        """End the response after the last event."""
        async with asyncio.timeout(WRITE_LIMIT_S):
            await self._response.write_eof()
        return self._response

    def abort(self) -> web.StreamResponse:
        """Close the connection of a reader that reads nothing, and drop what waits for it."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._response
