"""How a command lets the running node generate: over `/ws` on its Unix socket, one event after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from node.errors import NodeNotRunningError, OperationError
from node.places import socket_path

Result = TypeVar("Result")


def generate_on_node(data_dir: Path, **asked: Any) -> Iterator[dict[str, Any]]:
    """Yields the events of one generation by the node that runs on `data_dir`, the receipt last.

    If the caller stops reading, the work ends on this node and on all peers.

    Raises:
        NodeNotRunningError: no node runs there, or it ended meanwhile.
        OperationError: the node refused, or the generation failed; the message is the node's.
    """
    loop = asyncio.new_event_loop()
    try:
        conversation = _Conversation(data_dir)
        _finish(loop, conversation.open())
        try:
            _finish(loop, conversation.ask(asked))
            while True:
                event = _finish(loop, conversation.next_event())
                yield event
                if event["event"] == "receipt":
                    return
        finally:
            _finish(loop, conversation.close())
    finally:
        loop.close()


def _finish(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` to its end. An interruption cancels it, so that it does not fail later when the socket closes."""
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    except KeyboardInterrupt:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        raise


class _Conversation:
    """One WebSocket to the node."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def open(self) -> None:
        """Connect."""
        connector = aiohttp.UnixConnector(str(socket_path(self._data_dir)))
        self._http = aiohttp.ClientSession(connector=connector)
        try:
            self._socket = await self._http.ws_connect("http://localhost/ws", max_msg_size=0)
        except (aiohttp.ClientError, OSError) as exc:
            await self._http.close()
            raise NodeNotRunningError(f"no node answers on {self._data_dir}: start one, or run without it") from exc

    async def ask(self, asked: dict[str, Any]) -> None:
        """Begin the generation, under a name that is unique to this connection."""
        name = f"run-{secrets.token_hex(6)}"
        await self._socket.send_json({"op": "generate", "id": 1, "request": name, **asked})

    async def next_event(self) -> dict[str, Any]:
        """The next event of the generation; raises OperationError if it is an error."""
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise NodeNotRunningError(
                    f"the node on {self._data_dir} ended before the answer was complete: run it again"
                )
            frame: dict[str, Any] = json.loads(message.data)
            if frame["type"] == "reply" and not frame["ok"]:
                raise OperationError(frame["error"]["message"])
            if frame["type"] != "generation":
                continue
            if frame["event"] == "error":
                raise OperationError(frame["message"])
            return frame

    async def close(self) -> None:
        """Disconnect; what is still being computed for us ends."""
        await self._socket.close()
        await self._http.close()
