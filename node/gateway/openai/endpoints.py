"""`/v1/...`: the handlers, as OpenAI's clients expect them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from aiohttp import web

from node.engine import GenerationRequest
from node.engine.engine import QueueFullError
from node.engine.request import Completed, Event, Failed, Token
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.errors import ApiError
from node.gateway.openai.answers import AnswerForm, model_object
from node.gateway.openai.body import Asked, read_chat, read_completion
from node.gateway.openai.prepare import prepare
from node.gateway.openai.sse import DONE, EventWriter, frame
from node.gateway.openai.stream import generation

PRIVACY_HEADER = "X-Kekahyde-Privacy"


async def list_models(request: web.Request) -> web.Response:
    """GET /v1/models."""
    context = request.app[CONTEXT]
    listed = await context.in_background(context.engine.models.usable)
    return web.json_response({"object": "list", "data": [model_object(model) for model in listed]})


async def get_model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}."""
    context, name = request.app[CONTEXT], request.match_info["model"]
    listed = await context.in_background(context.engine.models.usable)
    for model in listed:
        if name in (model.name, model.summary.model_id):
            return web.json_response(model_object(model))
    known = ", ".join(model.name for model in listed) or "none"
    raise ApiError(404, f"no model is called {name[:128]!r}; the models are: {known}", "model_not_found", "model")


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    asked = read_chat(await read_json(request), request.headers.get(PRIVACY_HEADER))
    return await _answer(request, asked, f"chatcmpl-{secrets.token_hex(12)}", chat=True)


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    asked = read_completion(await read_json(request), request.headers.get(PRIVACY_HEADER))
    return await _answer(request, asked, f"cmpl-{secrets.token_hex(12)}", chat=False)


async def _answer(request: web.Request, asked: Asked, answer_id: str, chat: bool) -> web.StreamResponse:
    context = request.app[CONTEXT]
    name = context.connections.name_of(request)
    wanted = await context.in_background(prepare, context.engine, asked, answer_id, name)
    form = AnswerForm(answer_id, int(time.time()), asked.model or wanted.model.name, chat, asked.include_usage)
    try:
        if asked.stream:
            return await _streamed(request, context, wanted, form)
        return await _whole(context, wanted, form)
    except QueueFullError as exc:
        raise ApiError(429, str(exc), "queue_full", headers={"Retry-After": "1"}) from exc


async def _whole(context: GatewayContext, wanted: GenerationRequest, form: AnswerForm) -> web.Response:
    async with generation(context.engine, wanted) as events:
        while True:
            for event in await events.take():
                match event:
                    case Completed(receipt):
                        return web.json_response(form.whole(receipt))
                    case Failed(message, code):
                        raise ApiError(500, message, code)
                    case _:
                        pass


async def _streamed(
    request: web.Request, context: GatewayContext, wanted: GenerationRequest, form: AnswerForm
) -> web.StreamResponse:
    async with generation(context.engine, wanted) as events:
        writer = EventWriter(request)
        await writer.open()
        try:
            await writer.write([frame(chunk) for chunk in form.opening()])
            over = False
            while not over:
                frames, over = _frames(await events.take(writer.due_s), form)
                await writer.write(frames)
            return await writer.close()
        except (TimeoutError, ConnectionError):
            return writer.abort()


def _frames(events: Sequence[Event], form: AnswerForm) -> tuple[list[bytes], bool]:
    """The frames to send for these events, and whether the last event was among them."""
    frames: list[bytes] = []
    for event in events:
        match event:
            case Token(text=text) if text:
                frames.append(frame(form.text(text)))
            case Completed(receipt):
                return [*frames, *(frame(chunk) for chunk in form.closing(receipt)), DONE], True
            case Failed(message, code):
                return [*frames, frame(ApiError(500, message, code).as_json())], True
            case _:
                pass
    return frames, False
