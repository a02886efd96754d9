"""Target: what a client says over the WebSocket. Every frame is answered, and the connection goes on."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from node.gateway.http.app import parse_object
from node.gateway.http.errors import ApiError
from scripts.fuzzing.bodies import GENERATE
from scripts.fuzzing.forms import JSON
from scripts.fuzzing.served import ANSWER_S, Served, served
from scripts.fuzzing.target import Target

OUTWARD = frozenset({"pull", "pair_start", "restart"})
"""Operations that reach other devices or a hub; a frame that asks for one is not sent."""
LAST = "the last one"


class Client:
    """One connection to the WebSocket of the node in this process."""

    def __init__(self, node: Served) -> None:
        self._path = str(node.data_dir / "control.sock")
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        node.stack.callback(self._close)

    def say(self, text: str, frame: Mapping[str, Any]) -> None:
        """Send a frame, and read until it is answered, and one that was sent after it. Raises RuntimeError where one
        of them is not."""
        self._loop.run_until_complete(self._say(text, frame))

    async def _say(self, text: str, frame: Mapping[str, Any]) -> None:
        if self._socket is None or self._socket.closed:
            await self._open()
        assert self._socket is not None
        await self._socket.send_str(text)
        await self._socket.send_str(json.dumps({"op": "cancel", "id": LAST, "request": frame.get("request")}))
        awaited = {json.dumps(LAST), *([json.dumps(frame["id"])] if "id" in frame else [])}
        try:
            async with asyncio.timeout(ANSWER_S):
                while awaited:
                    message = await self._socket.receive()
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        raise RuntimeError(f"the connection ended: {message.type.name} {message.data}")
                    said = json.loads(message.data)
                    awaited.discard(json.dumps(said.get("id")))
                    _check(said)
        except TimeoutError:
            await self._socket.close()
            raise RuntimeError(f"no answer in {ANSWER_S:g} s") from None

    async def _open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=self._path))
        self._socket = await self._session.ws_connect("http://localhost/ws")

    def _close(self) -> None:
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()


def _check(said: dict[str, Any]) -> None:
    """Raises RuntimeError where the node says of an operation that it failed in a way nobody expected."""
    error = said.get("error")
    if isinstance(error, dict) and error.get("code") in ("internal", None):
        raise RuntimeError(str(error)[:500])
    if isinstance(error, dict) and " failed (" in str(error.get("message")):
        raise RuntimeError(str(error)[:500])


@functools.cache
def client_of(node: Served) -> Client:
    """The one of a node."""
    return Client(node)


def read_frame(data: bytes) -> None:
    """One frame; a generation that it starts is cancelled."""
    text = data.decode("utf-8", "replace")
    try:
        frame = parse_object(text)
    except ApiError:  # the node says so, and cannot know the id
        frame = {}
    if str(frame.get("op")) in OUTWARD:
        return
    client_of(served()).say(text, frame)
    served().complaints.raise_them()


def _seeds() -> list[bytes]:
    frames: list[dict[str, Any]] = [
        GENERATE,
        {"op": "generate", "request": "p", "prompt": "a", "max_tokens": 2, "model": "tiny"},
        {"op": "subscribe", "id": 2, "topics": ["state", "chunks", "logs"]},
        {"op": "state", "id": "x"},
        {"op": "ban", "id": 1, "peer": "12D3KooWNobody", "duration_s": 5.5, "reason": "it lied", "remove": False},
        {"op": "allow", "id": 1, "peer": "desk", "only": True, "remove": True},
        {"op": "name", "id": 1, "peer": "", "name": "desk"},
        {
            "op": "lending_set",
            "id": 1,
            "paused": False,
            "hours": [22, 6],
            "monthly_bytes": 1 << 30,
            "replicate": True,
        },
        {"op": "conversation_put", "id": 1, "conversation": "a1", "text": "hello"},
        {"op": "conversation_drop", "id": 1, "conversation": "a1"},
        {"op": "pair_confirm", "id": 1, "peer": "x", "code": "123456", "may_read_prompts": True},
        {"op": "publish", "id": 1, "model": "tiny", "automatic": False},
        {"op": "invite", "id": 1, "expires_s": 60},
        {"op": "join", "id": 1, "line": "kekahyde:1:x", "replace": False},
        *({"op": op, "id": 1} for op in ("peers", "doctor", "transfers", "pair_list", "access", "conversations")),
    ]
    return [json.dumps(frame).encode() for frame in frames]


TARGETS = (Target("websocket", "a frame of /ws", read_frame, (), _seeds, JSON, grows_bytes=64 << 20),)
