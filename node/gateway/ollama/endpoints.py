"""`/api/chat` and `/api/generate`: the handlers, as Ollama's clients expect them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from node.gateway.chat.asked import Asked
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat, read_completion
from node.gateway.chat.embedding import embedded, read_embedding
from node.gateway.chat.sse import EventWriter
from node.gateway.chat.streaming import stream_answer
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import json_text, read_json
from node.gateway.http.context import CONTEXT
from node.gateway.http.errors import PRIVACY_HEADER
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


async def embed(request: web.Request) -> web.Response:
    """POST /api/embed."""
    started = time.perf_counter_ns()
    body = await read_json(request)
    asked = read_embedding(
        {"model": body.get("model"), "input": body.get("input")}, request.headers.get(PRIVACY_HEADER)
    )
    answers = await embedded(request, asked, f"api-{secrets.token_hex(12)}")
    tokens = sum(answer.receipt.prompt_tokens for answer in answers if answer.receipt is not None)
    facts = {"total_duration": time.perf_counter_ns() - started, "load_duration": 0, "prompt_eval_count": tokens}
    vectors = [list(answer.vector) for answer in answers]
    return web.json_response({"model": str(body.get("model") or ""), "embeddings": vectors, **facts})


def _loaded(body: dict[str, Any], empty: dict[str, Any]) -> web.Response:
    """Without a prompt Ollama only loads, or unloads, a model; here models are loaded with their first prompt."""
    reason = "unload" if body.get("keep_alive") == 0 else "load"
    said = {"model": str(body.get("model") or ""), "created_at": now(), **empty, "done": True, "done_reason": reason}
    return web.json_response(said)


async def _answer(request: web.Request, asked: Asked, chat: bool) -> web.StreamResponse:
    context = request.app[CONTEXT]
    prepared = await prepared_for(request, asked, f"api-{secrets.token_hex(12)}")
    form = LineForm(asked.model or prepared.model.name, chat, prepared.note)
    if asked.stream:
        writer = EventWriter(request, "application/x-ndjson", keep_alive=b"")
        return await stream_answer(request, prepared, form, writer, json_lines)
    (answer,) = await whole_answers(context, prepared)
    return web.json_response(form.whole(answer))


def json_lines(values: Iterable[dict[str, Any]]) -> list[bytes]:
    """Lines of a stream."""
    return [json_text(value).encode() + b"\n" for value in values]
