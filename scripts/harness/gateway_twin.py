"""A twin of a node's gateway for tests and benchmarks of the interface: the same WebSocket, a script behind it.

It serves on `<data dir>/control.sock`. What it says is set by its user; what it was asked is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

PEER_IDS = [f"12D3KooWTwin{number:03d}{'x' * 31}{number:06d}" for number in range(64)]


def peer(number: int, **changes: Any) -> dict[str, Any]:
    """A peer as `state` tells of it."""
    return {
        "peer_id": PEER_IDS[number],
        "state": "alive",
        "addrs": [f"/ip4/127.0.0.1/tcp/{4700 + number}"],
        "rtt_ms": 1.5 + number,
        "roles": ["pad"] if number % 2 == 0 else ["share"],
        "layers": "0-5",
        "speed_gmacs": 20.0 + number,
        "version": "0.1.0",
        "excluded": None,
        "connected": True,
        "paired": False,
        "operator": None,
        "memory_bytes": 8 << 30,
        "queued": 0,
        "chunks": 10 * number,
        "rejected": 0,
        "bytes_up": 1000 * number,
        "bytes_down": 3000 * number,
        **changes,
    }


def model(name: str = "story", **changes: Any) -> dict[str, Any]:
    """A model as `state` tells of it."""
    return {
        "name": name,
        "model_id": f"{name}-id",
        "layers": 6,
        "held": "0-5",
        "size_bytes": 4_300_000,
        "state": "ready",
        "coverage": "complete",
        "chat": False,
        "context": 512,
        **changes,
    }


def receipt(text: str, mode: str = "split", **changes: Any) -> dict[str, Any]:
    """A receipt as the gateway ends a generation with."""
    return {
        "type": "receipt",
        "text": text,
        "tokens": len(text.split()),
        "prompt_tokens": 5,
        "mode": mode,
        "asked": "auto",
        "model": "story",
        "model_id": "ab" * 32,
        "peers": [
            {"peer_id": PEER_IDS[0], "role": "pad", "chunks": 20, "rejected": 0, "status": "active"},
            {"peer_id": PEER_IDS[1], "role": "share", "chunks": 20, "rejected": 0, "status": "active"},
        ],
        "chunks": {"sent": 40, "verified": 38, "rejected": 1, "hedged": 0, "local": 2},
        "bytes": {"up": 42_000, "down": 128_000},
        "ttft_s": 0.1,
        "tokens_per_s": 38.0,
        "finish_reason": "stop",
        "pads": {"rows": 0, "seconds": 0.0},
        "timings_s": {},
        "note": None,
        **changes,
    }


Script = Callable[["TwinConnection", dict[str, Any]], Coroutine[Any, Any, None]]


async def three_words(connection: TwinConnection, request: dict[str, Any]) -> None:
    """The script that runs where a test gives none."""
    await connection.answer(request["request"], ["Hello", " there", " **friend**"])


class TwinConnection:
    """One client of the twin."""

    def __init__(self, twin: GatewayTwin, socket: web.WebSocketResponse) -> None:
        self.twin = twin
        self._socket = socket
        self.cancelled: dict[str, asyncio.Event] = {}

    @property
    def closed(self) -> bool:
        return self._socket.closed

    async def send(self, event: dict[str, Any]) -> None:
        await self._socket.send_json(event)

    async def close(self) -> None:
        """Break the connection."""
        await self._socket.close()

    async def generation(self, request: str, event: str, **fields: Any) -> None:
        await self.send({"type": "generation", "request": request, "event": event, **fields})

    async def answer(
        self, request: str, words: list[str], mode: str = "split", pause_s: float = 0.0, **changes: Any
    ) -> None:
        """A whole generation; where it is cancelled on the way, its receipt says so."""
        await self.generation(
            request, "started", mode=mode, model="story", plan="two peers are fast enough", prompt_tokens=5
        )
        cancelled = self.cancelled.setdefault(request, asyncio.Event())
        said = ""
        for index, word in enumerate(words):
            if cancelled.is_set():
                changes["finish_reason"] = "cancelled"
                break
            said += word
            await self.generation(request, "token", index=index, id=index, text=word)
            await asyncio.sleep(pause_s)
        await self.generation(request, "receipt", receipt=receipt(said, mode, **changes))


class GatewayTwin:
    """The server. `state` is what it tells; `asked` is what clients sent."""

    def __init__(self, script: Script = three_words) -> None:
        self.script = script
        self.state: dict[str, Any] = {
            "type": "state",
            "node": {
                "peer_id": "12D3KooWSelf",
                "version": "0.1.0",
                "model": "story",
                "default_privacy": "auto",
                "swarm": {"name": "home", "open": False},
            },
            "peers": [],
            "models": [model()],
            "transfers": [],
            "requests": [],
        }
        self.asked: list[dict[str, Any]] = []
        self.refuse: dict[str, str] = {}
        """Operations that are refused, with the words."""
        self.results: dict[str, dict[str, Any]] = {}
        """What operations give; nothing where it says nothing."""
        self.connections: list[TwinConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def requests(self, op: str) -> list[dict[str, Any]]:
        """What was asked of one operation."""
        return [request for request in self.asked if request["op"] == op]

    async def tell(self, **changes: Any) -> None:
        """Change the state and send it to everybody."""
        self.state.update(changes)
        await self.broadcast(self.state)

    async def broadcast(self, event: dict[str, Any]) -> None:
        for connection in self.connections:
            await connection.send(event)

    @asynccontextmanager
    async def serve(self, data_dir: Path) -> AsyncIterator[GatewayTwin]:
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.get("/ws", self._connect)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(data_dir / "control.sock")).start()
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = TwinConnection(self, socket)
        self.connections.append(connection)
        try:
            await connection.send({"type": "hello", "protocol": 1, "node": self.state["node"]})
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(connection, json.loads(message.data))
        finally:
            self.connections.remove(connection)
        return socket

    async def _take(self, connection: TwinConnection, request: dict[str, Any]) -> None:
        self.asked.append(request)
        op = request["op"]
        reply: dict[str, Any] = {"type": "reply", "id": request.get("id")}
        if op in self.refuse:
            await connection.send({**reply, "ok": False, "error": {"message": self.refuse[op], "code": "refused"}})
            return
        await connection.send({**reply, "ok": True, "result": self.results.get(op, {})})
        if op == "subscribe":
            await connection.send(self.state)
        elif op == "cancel":
            connection.cancelled.setdefault(request["request"], asyncio.Event()).set()
        elif op == "generate":
            task = asyncio.create_task(self.script(connection, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
