"""The WebSocket to a node's gateway: calls with their replies, events, and reconnecting.

Everything runs in one event loop. Events go to one callback in the order in which they came.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 16 << 20
MAX_REQUEST_BYTES = 1 << 20
"""The protocol's limit: the gateway refuses longer frames."""
CALL_TIMEOUT_S = 30.0
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
TOPICS = ("state", "chunks", "logs")

OnEvent = Callable[[Mapping[str, Any]], None]
OnLink = Callable[[bool, str], None]


class GatewayError(Exception):
    """The gateway refused or does not answer; the text is for the user."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """Where the gateway of a data directory is: its Unix socket, which needs no token."""

    data_dir: Path

    @property
    def socket(self) -> Path:
        """The path of the socket; it is in another directory if this one's path is too long."""
        elsewhere = self.data_dir / "control.path"
        try:
            return Path(elsewhere.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            return self.data_dir / "control.sock"

    async def answers(self) -> bool:
        """Whether a node runs here and says that it is healthy."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
                session.get("http://localhost/health", timeout=aiohttp.ClientTimeout(total=2)) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


class GatewayClient:
    """One connection, opened again whenever it breaks."""

    def __init__(self, place: GatewayPlace, on_event: OnEvent, on_link: OnLink) -> None:
        self._place = place
        self._on_event = on_event
        self._on_link = on_link
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                reason = await self._connect_once()
                pause_s = FIRST_RETRY_S
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                reason = str(exc) or type(exc).__name__
            finally:
                self._lose()
            self._on_link(False, reason)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)

    async def _connect_once(self) -> str:
        connector = aiohttp.UnixConnector(str(self._place.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect("http://localhost/ws", max_msg_size=MAX_FRAME_BYTES, heartbeat=20) as socket,
        ):
            self._socket = socket
            self._on_link(True, "")
            subscription = asyncio.create_task(self._subscribe())
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        self._receive(message.data)
            finally:
                subscription.cancel()
        return "the node closed the connection"

    async def _subscribe(self) -> None:
        try:
            await self.call("subscribe", topics=list(TOPICS))
        except GatewayError as exc:
            logger.warning("cannot subscribe to the node's events: %s", exc)

    def _lose(self) -> None:
        self._socket = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(GatewayError("the node stopped answering", "lost"))

    def _receive(self, text: str) -> None:
        try:
            event = json.loads(text)
        except ValueError:
            logger.warning("the gateway sent a frame that is not JSON")
            return
        if not isinstance(event, dict):
            return
        if event.get("type") == "reply":
            self._reply(event)
        else:
            self._on_event(event)

    def _reply(self, event: Mapping[str, Any]) -> None:
        future = self._waiting.pop(event.get("id", 0), None)
        if future is None or future.done():
            return
        if event.get("ok") is True:
            result = event.get("result")
            future.set_result(result if isinstance(result, dict) else {})
            return
        error = event.get("error")
        message, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (None, None)
        future.set_exception(GatewayError(str(message or "the node refused without a reason"), str(code or "")))

    async def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Perform one operation; raises GatewayError with the node's message."""
        socket = self._socket
        if socket is None:
            raise GatewayError("the node does not answer yet", "lost")
        number = next(self._numbers)
        frame = json.dumps({"op": op, "id": number, **arguments}, ensure_ascii=False)
        if len(frame.encode()) > MAX_REQUEST_BYTES:
            raise GatewayError("the text is longer than a node accepts (1 MiB): send a shorter one", "too_long")
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await socket.send_str(frame)
            async with asyncio.timeout(CALL_TIMEOUT_S):
                result: dict[str, Any] = await future
                return result
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise GatewayError("the node stopped answering", "lost") from exc
        except TimeoutError as exc:
            raise GatewayError(f"the node did not answer {op!r} within {CALL_TIMEOUT_S:.0f} s", "timeout") from exc
        finally:
            self._waiting.pop(number, None)

    async def subscribe(self, topics: Sequence[str]) -> None:
        await self.call("subscribe", topics=list(topics))
