"""`/ws` as its clients see it: replies, state, chunks, logs, generations and their end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from gateway_fakes import Serving, serving
from waiting import until

from node.engine.request import Completed
from node.gateway.live import websocket
from node.places import socket_path, token_of

WAIT_S = 10.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("ws")) as node:
        yield node


class Talk:
    """One connection; frames are kept until a test looks for them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    async def say(self, **frame: Any) -> None:
        await self.socket.send_str(json.dumps(frame))

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self.socket.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, message
                self.frames.append(json.loads(message.data))
                if wanted(self.frames[-1]):
                    return self.frames[-1]

    async def reply(self, number: object) -> dict[str, Any]:
        return await self.until(lambda frame: frame["type"] == "reply" and frame["id"] == number)

    async def last_event(self, request: str) -> dict[str, Any]:
        ends = ("receipt", "error")
        return await self.until(lambda f: f.get("request") == request and f.get("event") in ends)

    def events(self, request: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame.get("request") == request]


@asynccontextmanager
async def talk(node: Serving, path: str = "/ws", over_socket: bool = False) -> AsyncIterator[Talk]:
    connector = aiohttp.UnixConnector(str(socket_path(node.data_dir))) if over_socket else None
    base = "http://localhost" if over_socket else node.url
    async with aiohttp.ClientSession(connector=connector) as http, http.ws_connect(base + path) as socket:
        yield Talk(socket)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


def test_hello_state_and_replies(node: Serving) -> None:
    async def work() -> None:
        async with talk(node) as t:
            hello = await t.until(lambda frame: True)
            assert (hello["type"], hello["protocol"]) == ("hello", 1)
            assert hello["node"]["peer_id"] == node.node.peer_id and hello["node"]["gateway"] == node.url
            await t.say(op="state", id=1)
            state = (await t.reply(1))["result"]
            assert set(state) == {"node", "peers", "models", "transfers", "requests", "pairings", "lending"}
            (model,) = state["models"]
            assert (model["name"], model["state"], model["held"]) == ("story", "ready", "0-5")
            assert (model["chat"], model["context"]) == (False, 512)
            await t.say(op="peers", id="two")
            assert (await t.reply("two"))["result"] == {"peers": []}
            await t.say(op="nonsense", id=3)
            assert (await t.reply(3))["error"]["code"] == "unknown_op"
            await t.socket.send_str("{")
            assert (await t.reply(None))["error"]["code"] == "invalid_json"
            await t.say(op="subscribe", id=4, topics=["everything"])
            assert not (await t.reply(4))["ok"]

    run(work())


def test_a_generation_from_queue_to_receipt(node: Serving) -> None:
    async def work() -> None:
        async with talk(node) as t:
            await t.say(op="generate", id=1, request="a", prompt="Once upon a time", max_tokens=8, seed=1)
            assert (await t.reply(1))["ok"]
            receipt = (await t.last_event("a"))["receipt"]
            events = t.events("a")
            kinds = [event["event"] for event in events]
            assert kinds == ["queued", "started", "prefill", *["token"] * 8, "receipt"]
            assert events[1]["mode"] == "local" and events[1]["plan"] and events[1]["prompt_tokens"] == 5
            assert receipt["text"] == "".join(event["text"] for event in events if event["event"] == "token")
            assert receipt["type"] == "receipt" and receipt["tokens"] == 8
            messages = [{"role": "user", "content": "Once upon a time"}]
            await t.say(op="generate", request="b", messages=messages, max_tokens=8, seed=1, privacy="local")
            assert (await t.last_event("b"))["receipt"]["text"] == receipt["text"]

    run(work())


def test_generations_that_are_refused(node: Serving) -> None:
    async def work() -> None:
        async with talk(node) as t:
            for number, fields, code in [
                (1, {"prompt": "x", "messages": []}, "invalid_value"),
                (2, {"prompt": "x", "privacy": "none"}, "invalid_value"),
                (3, {"prompt": "x", "model": "nothing"}, "model_not_found"),
                (4, {"prompt": "x", "n": 4}, "unsupported_parameter"),
                (5, {"prompt": "cat " * 3000}, "context_length_exceeded"),
                (7, {"prompt": "x", "logprobs": 2}, "unsupported_parameter"),
                (8, {"prompt": "x", "echo": True}, "unsupported_parameter"),
            ]:
                await t.say(op="generate", id=number, request=f"r{number}", **fields)
                error = await t.last_event(f"r{number}")
                assert error["event"] == "error" and error["code"] == code, error
                assert any(f["type"] == "reply" and f["id"] == number and not f["ok"] for f in t.frames)
            await t.say(op="generate", id=6, prompt="x")
            assert "request must be a name" in (await t.reply(6))["error"]["message"]

    run(work())


def test_cancel_and_hang_up_end_generations(node: Serving) -> None:
    async def work() -> None:
        long = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True}
        async with talk(node) as t:
            await t.say(op="generate", request="c", **long)
            await t.until(lambda frame: frame.get("event") == "token")
            await t.say(op="cancel", id=1, request="c")
            assert (await t.last_event("c"))["receipt"]["finish_reason"] == "cancelled"
            assert any(f["type"] == "reply" and f["result"] == {"cancelled": True} for f in t.frames) or (
                (await t.reply(1))["result"] == {"cancelled": True}
            )
            await t.say(op="cancel", id=2, request="c")
            assert (await t.reply(2))["result"] == {"cancelled": False}
            await t.say(op="generate", request="d", **long)
            await t.until(lambda frame: frame.get("event") == "token")

    run(work())
    node.until_cancelled(2)


def test_state_is_pushed_when_something_changes(node: Serving) -> None:
    async def work() -> None:
        async with talk(node) as watcher, talk(node) as t:
            await watcher.say(op="subscribe", id=1, topics=["state"])
            await watcher.reply(1)
            await t.say(op="generate", request="e", prompt="Once", max_tokens=400, ignore_eos=True)
            state = await watcher.until(lambda frame: frame["type"] == "state" and frame["requests"])
            (request,) = state["requests"]
            assert request["request"] == "e" and request["state"] in ("queued", "running")
            await t.say(op="cancel", request="e")
            await watcher.until(lambda frame: frame["type"] == "state" and not frame["requests"])

    run(work())


def test_logs_reach_who_asked_for_them(node: Serving) -> None:
    async def work() -> None:
        async with talk(node) as t:
            logging.getLogger("node.test").warning("first %s", "line")
            await t.say(op="subscribe", id=1, topics=["logs"])
            await t.reply(1)
            logging.getLogger("node.test").warning("second line")
            line = await t.until(lambda frame: frame["type"] == "log" and frame["message"] == "second line")
            assert (line["level"], line["logger"]) == ("WARNING", "node.test") and abs(
                line["time"] - time.time()
            ) < 60
            assert any(frame.get("message") == "first line" for frame in t.frames), "the latest lines come along"

    run(work())


def test_management_needs_the_token_or_the_socket(node: Serving) -> None:
    async def work() -> None:
        async with talk(node) as t:
            await t.say(op="access", id=1)
            assert (await t.reply(1))["error"]["code"] == "invalid_token"
        async with talk(node, f"/ws?token={token_of(node.data_dir)}") as t:
            await t.say(op="access", id=2)
            assert (await t.reply(2))["ok"]
        async with talk(node, over_socket=True) as t:
            await t.say(op="access", id=3)
            assert (await t.reply(3))["ok"]

    run(work())


def test_foreign_pages_cannot_open_it(node: Serving) -> None:
    async def work() -> None:
        async with aiohttp.ClientSession() as http:
            for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(node.url + "/ws", headers=headers)
                assert refused.value.status == 403

    run(work())


def test_a_frame_that_is_too_big_or_no_text_ends_the_connection(node: Serving) -> None:
    async def work() -> None:
        for send, code in [(lambda s: s.send_str("x" * (1 << 21)), 1009), (lambda s: s.send_bytes(b"x"), 1003)]:
            async with talk(node) as t:
                await t.until(lambda frame: True)
                await send(t.socket)
                async with asyncio.timeout(WAIT_S):
                    while (await t.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                        pass
                assert t.socket.close_code == code

    run(work())


def test_a_client_that_reads_nothing_is_given_up_and_others_notice_nothing(
    node: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of 200 kB to somebody who stops reading: its generation ends, its memory is bounded."""
    monkeypatch.setattr(websocket, "json_text", lambda value: json.dumps({**value, "padding": "x" * 200_000}))
    ask = b'{"op": "generate", "request": "lazy", "prompt": "Once", "max_tokens": 400, "ignore_eos": true}'
    ends: list[str] = []
    node.engine.observe(
        lambda _running, e: ends.append(e.receipt.finish_reason) if isinstance(e, Completed) else None
    )
    mask = bytes(4)  # a mask of zeros leaves the text as it is
    with socket.create_connection(("127.0.0.1", node.port)) as raw:
        raw.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert raw.recv(12) == b"HTTP/1.1 101"
        raw.sendall(bytes([0x81, 0x80 | len(ask)]) + mask + ask)
        deadline = time.monotonic() + WAIT_S
        while not node.engine.requests():
            assert time.monotonic() < deadline, "it began"
            time.sleep(0.002)
        while node.engine.requests():
            assert time.monotonic() < deadline, "it was given up"
            time.sleep(0.002)
    until(lambda: ends, "its end is told")  # the engine forgets a request before it tells of its end
    assert ends == ["cancelled"]
