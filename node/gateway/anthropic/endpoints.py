"""`/v1/messages`: the handlers, as Anthropic's clients expect them."""

from __future__ import annotations

import secrets

from aiohttp import web

from node.engine.engine import QueueFullError
from node.engine.request import Completed
from node.gateway.anthropic.answers import MessageForm
from node.gateway.anthropic.body import translate
from node.gateway.chat.answer import Answer
from node.gateway.chat.asked import Asked
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.sse import EventWriter, named_frames
from node.gateway.chat.stream import generations
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.errors import PRIVACY_HEADER, ApiError


async def messages(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages."""
    asked, prepared = await _prepared(request)
    context = request.app[CONTEXT]
    model = asked.model or prepared.model.name
    form = MessageForm(prepared.requests[0].id, model, len(prepared.requests[0].prompt_ids), prepared.note)
    try:
        if asked.stream:
            return await _streamed(request, context, prepared, form)
        (answer,) = await whole_answers(context, prepared)
        return web.json_response(form.whole(answer))
    except QueueFullError as exc:
        raise ApiError(429, str(exc), "queue_full", headers={"Retry-After": "1"}) from exc


async def count_tokens(request: web.Request) -> web.Response:
    """POST /v1/messages/count_tokens."""
    _, prepared = await _prepared(request)
    return web.json_response({"input_tokens": len(prepared.requests[0].prompt_ids)})


async def _prepared(request: web.Request) -> tuple[Asked, Prepared]:
    asked = read_chat(translate(await read_json(request)), request.headers.get(PRIVACY_HEADER))
    return asked, await prepared_for(request, asked, f"msg_{secrets.token_hex(12)}")


async def _streamed(
    request: web.Request, context: GatewayContext, prepared: Prepared, form: MessageForm
) -> web.StreamResponse:
    answer = Answer(prepared, 0)
    async with generations(context.engine, prepared.requests) as events:
        writer = EventWriter(request)
        await writer.open()
        try:
            await writer.write(named_frames(form.opening()))
            over = False
            while not over:
                frames: list[bytes] = []
                for _, event in await events.take(writer.due_s):
                    try:
                        frames += named_frames(form.pieces(answer, answer.read(event)))
                    except ApiError as exc:
                        frames += named_frames([exc.as_json(request.path)])
                        over = True
                    if isinstance(event, Completed):
                        frames += named_frames(form.closing(answer))
                        over = True
                await writer.write(frames)
            return await writer.close()
        except (TimeoutError, ConnectionError):
            return writer.abort()
