"""`/ws`: reads a client's frames and sends what it asked for (SPEC.md, Gateway)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from node.engine.request import Completed, Embedded, Event, Failed, Note, Prefilled, Queued, Started, Token
from node.errors import KekahydeError
from node.gateway.chat.body import read_generate
from node.gateway.chat.prepare import prepare
from node.gateway.chat.stream import generations
from node.gateway.http.app import caller_of, json_text, parse_object, rules_of
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.control import perform
from node.gateway.http.errors import ApiError, api_error_of
from node.gateway.http.limits import MAX_FRAME_BYTES, MAX_GENERATIONS_A_CLIENT, MAX_TASKS_A_CLIENT, WRITE_LIMIT_S
from node.gateway.live.feed import FEED
from node.gateway.live.outbox import Outbox
from node.gateway.live.state import node_status, state_of

log = logging.getLogger(__name__)

PROTOCOL = 1
TOPICS = frozenset({"state", "chunks", "logs"})
HEARTBEAT_S = 20.0
MAX_REQUEST_ID_CHARACTERS = 128


async def websocket(request: web.Request) -> web.StreamResponse:
    """GET /ws."""
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME_BYTES, compress=False)
    await socket.prepare(request)
    await Client(request, socket).run()
    return socket


class Client:
    """One connection; when it closes, all work for it ends."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._context: GatewayContext = request.app[CONTEXT]
        self._feed = request.app[FEED]
        self._request = request
        self._socket = socket
        self._generations: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.Task[None] | None = None
        self._farewell: asyncio.Task[None] | None = None
        self.outbox = Outbox(self._give_up)
        self.topics: frozenset[str] = frozenset()
        self.chunks_dropped = 0

    async def run(self) -> None:
        """Serve until the connection closes."""
        writer = self._writer = asyncio.create_task(self._write())
        self.outbox.put(json_text({"type": "hello", "protocol": PROTOCOL, "node": node_status(self._context)}))
        self._feed.changed(self, present=True)
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    self._obey(message.data)
                elif message.type is WSMsgType.BINARY:
                    await self._socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"JSON text only")
        finally:
            self._feed.changed(self, present=False)
            for task in (writer, *self._tasks):
                task.cancel()
            await asyncio.gather(writer, *self._tasks, return_exceptions=True)

    async def _write(self) -> None:
        """Send frames, one after the other; disconnect a client that takes nothing."""
        try:
            while True:
                frame = await self.outbox.take()
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await self._socket.send_str(frame)
                self.outbox.sent()
        except (TimeoutError, ConnectionError, RuntimeError):
            self._give_up()

    def _give_up(self) -> None:
        """Disconnect a client that reads too slowly, and end all work for it."""
        if self._farewell is None:
            for task in self._tasks:
                task.cancel()
            if self._writer is not None:
                self._writer.cancel()
            self._farewell = asyncio.create_task(self._say_farewell())

    async def _say_farewell(self) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(1.0):
                await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too far behind")
        if self._request.transport is not None:
            self._request.transport.abort()

    # --- what the client asks for

    def _obey(self, text: str) -> None:
        """Start what a frame asks for; the answer is sent when it is ready."""
        frame: dict[str, Any] = {}
        try:
            frame = parse_object(text)
            if len(self._tasks) >= MAX_TASKS_A_CLIENT:
                raise ApiError(429, f"{MAX_TASKS_A_CLIENT} operations of this connection are already waiting", "busy")
            if frame.get("op") == "generate":
                self._generate(frame)
            else:
                self._start(self._answer(frame))
        except ApiError as exc:
            self._refuse(frame, exc)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, frame: Mapping[str, Any]) -> None:
        """Answer every operation except `generate`."""
        try:
            match frame.get("op"):
                case "subscribe":
                    result = await self._subscribe(frame)
                case "cancel":
                    result = self._cancel(frame)
                case "state":
                    result = await self._context.in_background(state_of, self._context)
                case _:
                    rules, caller = rules_of(self._request), caller_of(self._request)
                    result = await perform(self._context, rules, caller, frame)
        except ApiError as exc:
            self._refuse(frame, exc)
        else:
            self._reply(frame, result)

    async def _subscribe(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        topics = frame.get("topics")
        if not isinstance(topics, list) or not TOPICS.issuperset(map(str, topics)):
            raise ApiError(400, f"topics must be a list of: {', '.join(sorted(TOPICS))}", "invalid_value", "topics")
        new = frozenset(map(str, topics)) - self.topics
        self.topics = frozenset(map(str, topics))
        self._feed.changed(self, present=True)
        if "state" in new:
            self.outbox.put(await self._feed.state_frame())
        if "logs" in new:
            for line in self._feed.log_frames():
                self.outbox.put(line, may_drop=True)
        return {"topics": sorted(self.topics)}

    def _cancel(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        return {"cancelled": self._context.engine.cancel(str(frame.get("request")))}

    # --- generations

    def _generate(self, frame: Mapping[str, Any]) -> None:
        name = frame.get("request")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_REQUEST_ID_CHARACTERS or not name.isprintable():
            raise ApiError(
                400, f"request must be a name of 1 to {MAX_REQUEST_ID_CHARACTERS} characters", "invalid_value"
            )
        if len(self._generations) >= MAX_GENERATIONS_A_CLIENT:
            raise ApiError(
                429, f"{MAX_GENERATIONS_A_CLIENT} generations of this connection are already running", "busy"
            )
        if name in self._generations:
            raise ApiError(409, f"a request {name!r} is already running: choose another name", "duplicate")
        task = self._generations[name] = self._start(self._run_generation(name, frame))
        task.add_done_callback(lambda _task: self._generations.pop(name, None))

    async def _run_generation(self, name: str, frame: Mapping[str, Any]) -> None:
        context = self._context
        try:
            connection = context.connections.name_of(self._request)
            wanted = await context.in_background(prepare, context.engine, read_generate(frame), name, connection)
            async with generations(context.engine, wanted.requests) as events:
                self._reply(frame, {"request": name})
                over = False
                while not over:
                    for _, event in await events.take():
                        self.outbox.put(json_text({"type": "generation", "request": name, **_event_object(event)}))
                        over = over or isinstance(event, Completed | Failed)
        except ApiError as exc:
            self._refuse(frame, exc)
        except KekahydeError as exc:
            self._refuse(frame, api_error_of(exc))

    # --- answers

    def _reply(self, frame: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        if "id" in frame:
            self.outbox.put(json_text({"type": "reply", "id": frame["id"], "ok": True, "result": result}))

    def _refuse(self, frame: Mapping[str, Any], error: ApiError) -> None:
        """Send one error reply; for a generation that could not begin, also its final error event."""
        said = {"message": str(error), "code": error.code or "error"}
        if "id" in frame or frame.get("op") != "generate":
            self.outbox.put(json_text({"type": "reply", "id": frame.get("id"), "ok": False, "error": said}))
        if frame.get("op") == "generate" and isinstance(frame.get("request"), str):
            self.outbox.put(json_text({"type": "generation", "request": frame["request"], "event": "error", **said}))


def _event_object(event: Event) -> dict[str, Any]:
    match event:
        case Queued(position):
            return {"event": "queued", "position": position}
        case Started(mode, model, plan, prompt_tokens):
            return {"event": "started", "mode": mode, "model": model, "plan": plan, "prompt_tokens": prompt_tokens}
        case Prefilled(done, total):
            return {"event": "prefill", "done": done, "total": total}
        case Token(index, token_id, text):
            return {"event": "token", "index": index, "id": token_id, "text": text}
        case Embedded(vector):
            return {"event": "embedding", "vector": list(vector)}
        case Note(text):
            return {"event": "note", "text": text}
        case Completed(receipt):
            return {"event": "receipt", "receipt": receipt.as_json()}
        case Failed(message, code):
            return {"event": "error", "message": message, "code": code}
