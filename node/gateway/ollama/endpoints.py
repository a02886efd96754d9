"""`/api/chat` and `/api/generate`: the handlers, as Ollama's clients expect them."""

from __future__ import annotations

import json
import secrets
from typing import Any

from aiohttp import web

from node.engine.engine import QueueFullError
from node.engine.request import Completed
from node.gateway.chat.answer import Answer
from node.gateway.chat.asked import Asked
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat, read_completion
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.sse import EventWriter
from node.gateway.chat.stream import generations
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.errors import PRIVACY_HEADER, ApiError
from node.gateway.ollama.answers import LineForm, now
from node.gateway.ollama.body import translate_chat, translate_generate


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /api/chat."""
    body = await read_json(request)
    if body.get("messages") == []:
        return _loaded(body, {"message": {"role": "assistant", "content": ""}})
    asked = read_chat(translate_chat(body), request.headers.get(PRIVACY_HEADER))
    return await _answer(request, asked, chat=True)


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/generate."""
    body = await read_json(request)
    if not body.get("prompt"):
        return _loaded(body, {"response": ""})
    translated, is_chat = translate_generate(body)
    asked = (read_chat if is_chat else read_completion)(translated, request.headers.get(PRIVACY_HEADER))
    return await _answer(request, asked, chat=False)


def _loaded(body: dict[str, Any], empty: dict[str, Any]) -> web.Response:
    """Without a prompt Ollama only loads, or unloads, a model; here models are loaded with their first prompt."""
    reason = "unload" if body.get("keep_alive") == 0 else "load"
    said = {"model": str(body.get("model") or ""), "created_at": now(), **empty, "done": True, "done_reason": reason}
    return web.json_response(said)


async def _answer(request: web.Request, asked: Asked, chat: bool) -> web.StreamResponse:
    context = request.app[CONTEXT]
    prepared = await prepared_for(request, asked, f"api-{secrets.token_hex(12)}")
    form = LineForm(asked.model or prepared.model.name, chat, prepared.note)
    try:
        if asked.stream:
            return await _streamed(request, context, prepared, form)
        (answer,) = await whole_answers(context, prepared)
        return web.json_response(form.whole(answer))
    except QueueFullError as exc:
        raise ApiError(429, str(exc), "queue_full", headers={"Retry-After": "1"}) from exc


async def _streamed(
    request: web.Request, context: GatewayContext, prepared: Prepared, form: LineForm
) -> web.StreamResponse:
    answer = Answer(prepared, 0)
    async with generations(context.engine, prepared.requests) as events:
        writer = EventWriter(request, "application/x-ndjson", keep_alive=b"")
        await writer.open()
        try:
            over = False
            while not over:
                lines: list[dict[str, Any]] = []
                for _, event in await events.take(writer.due_s):
                    over = over or isinstance(event, Completed)
                    try:
                        lines += form.pieces(answer, answer.read(event), isinstance(event, Completed))
                    except ApiError as exc:
                        lines.append({"error": str(exc)})
                        over = True
                    if isinstance(event, Completed):
                        lines.append(form.closing(answer))
                await writer.write([json_line(line) for line in lines])
            return await writer.close()
        except (TimeoutError, ConnectionError):
            return writer.abort()


def json_line(value: dict[str, Any]) -> bytes:
    """One line of a stream."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
