"""`Broadcaster` sends what happens in the node to all subscribed clients of /ws. It sleeps if there are none."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol

from aiohttp import web

from node.gateway.http.app import json_text
from node.gateway.http.context import GatewayContext
from node.gateway.live.outbox import Outbox
from node.gateway.live.state import state_of

log = logging.getLogger(__name__)

TURN_S = 0.05
"""Chunks and logs are sent at most twenty times a second."""
STATE_TURNS = 5
"""The state is sent at most four times a second."""
STATE_EVERY_S = 5.0
"""The state is sent at least this often."""
MAX_ITEMS = 512


class Subscriber(Protocol):
    """A client of /ws, as the feed sees it."""

    outbox: Outbox
    topics: frozenset[str]
    chunks_dropped: int


class Broadcaster:
    """One task for all clients, so that every frame is made only once."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._clients: set[Subscriber] = set()
        self._wanted = asyncio.Event()
        self._last_state = ""
        self._stated_at = 0.0
        self._last_line = 0

    def changed(self, client: Subscriber, present: bool) -> None:
        """A client came, left, or asked for other topics."""
        (self._clients.add if present else self._clients.discard)(client)
        watched = any("chunks" in each.topics for each in self._clients)
        feed = self._context.engine.feed
        if feed.watched and not watched:
            feed.clear()
        feed.watched = watched
        if any(each.topics for each in self._clients):
            self._wanted.set()
        else:
            self._wanted.clear()

    async def run(self) -> None:
        """Send frames until cancelled."""
        turn = 0
        while True:
            await self._wanted.wait()
            try:
                self._send_chunks()
                self._send_logs()
                if turn % STATE_TURNS == 0 and self._of("state"):
                    await self._send_state()
            except Exception:
                log.exception("a broadcast failed")
            turn += 1
            await asyncio.sleep(TURN_S)

    async def state_frame(self) -> str:
        """The complete state as a frame."""
        state = await self._context.in_background(state_of, self._context)
        return json_text({"type": "state", **state})

    def log_frames(self) -> list[str]:
        """The kept lines, for a client that has just subscribed to logs; those that nobody has got yet come with the
        next turn."""
        return [_text(line) for number, line in self._context.logs.after(0) if number <= self._last_line]

    def _of(self, topic: str) -> list[Subscriber]:
        return [client for client in self._clients if topic in client.topics]

    def _send_chunks(self) -> None:
        rows, dropped = self._context.engine.feed.take(MAX_ITEMS)
        if not rows:
            return
        items = json.dumps(rows)
        for client in self._of("chunks"):
            client.chunks_dropped += dropped
            frame = f'{{"type": "chunks", "dropped": {client.chunks_dropped}, "items": {items}}}'
            if client.outbox.put(frame, may_drop=True):
                client.chunks_dropped = 0
            else:
                client.chunks_dropped += len(rows)

    def _send_logs(self) -> None:
        lines = self._context.logs.after(self._last_line)
        if not lines:
            return
        self._last_line = lines[-1][0]
        _put_all(self._of("logs"), [_text(line) for _number, line in lines])

    async def _send_state(self) -> None:
        frame, now = await self.state_frame(), time.monotonic()
        if frame == self._last_state and now - self._stated_at < STATE_EVERY_S:
            return
        self._last_state, self._stated_at = frame, now
        _put_all(self._of("state"), [frame])


def _put_all(clients: Iterable[Subscriber], frames: list[str]) -> None:
    for client in clients:
        for frame in frames:
            client.outbox.put(frame, may_drop=True)


def _text(value: dict[str, Any]) -> str:
    return json_text(value)


FEED = web.AppKey("feed", Broadcaster)
