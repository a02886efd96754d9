"""`/v1/responses`: the handler, as OpenAI's clients expect it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from node.engine.engine import QueueFullError
from node.engine.request import Completed
from node.gateway.chat.answer import Answer
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.sse import EventWriter, named_frames
from node.gateway.chat.stream import generations
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT
from node.gateway.http.errors import PRIVACY_HEADER, ApiError
from node.gateway.openai.remembered import REMEMBERED
from node.gateway.openai.response_body import input_messages, translate
from node.gateway.openai.response_form import ResponseForm


async def responses(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses."""
    context, body = request.app[CONTEXT], await read_json(request)
    earlier = request.app[REMEMBERED].of(body.get("previous_response_id"))
    asked = read_chat(translate(body, earlier), request.headers.get(PRIVACY_HEADER))
    response_id = f"resp_{secrets.token_hex(24)}"
    prepared = await prepared_for(request, asked, response_id)
    form = ResponseForm(response_id, int(time.time()), asked.model or prepared.model.name, body, prepared.note)
    try:
        if asked.stream:
            return await _streamed(request, prepared, form, body)
        (answer,) = await whole_answers(context, prepared)
        _remember(request, prepared, answer, body)
        return web.json_response(form.whole(answer))
    except QueueFullError as exc:
        raise ApiError(429, str(exc), "queue_full", headers={"Retry-After": "1"}) from exc


def _remember(request: web.Request, prepared: Prepared, answer: Answer, body: Mapping[str, Any]) -> None:
    """Keep the conversation, unless the program says `store: false`."""
    if body.get("store") is False:
        return
    said: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    remembered = request.app[REMEMBERED]
    earlier = remembered.of(body.get("previous_response_id"))
    remembered.keep(prepared.requests[0].id, [*earlier, *input_messages(body.get("input")), said])


async def _streamed(
    request: web.Request, prepared: Prepared, form: ResponseForm, body: Mapping[str, Any]
) -> web.StreamResponse:
    answer = Answer(prepared, 0)
    async with generations(request.app[CONTEXT].engine, prepared.requests) as events:
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
                        frames += named_frames([form.failure(exc)])
                        over = True
                    if isinstance(event, Completed):
                        _remember(request, prepared, answer, body)
                        frames += named_frames(form.closing(answer))
                        over = True
                await writer.write(frames)
            return await writer.close()
        except (TimeoutError, ConnectionError):
            return writer.abort()
