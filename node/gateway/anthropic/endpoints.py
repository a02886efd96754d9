"""`/v1/messages`: the handlers, as Anthropic's clients expect them."""

from __future__ import annotations

import secrets

from aiohttp import web

from node.gateway.anthropic.answers import MessageForm
from node.gateway.anthropic.body import translate
from node.gateway.chat.asked import Asked
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.sse import EventWriter, named_frames
from node.gateway.chat.streaming import stream_answer
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT
from node.gateway.http.errors import PRIVACY_HEADER


async def messages(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages."""
    asked, prepared = await _prepared(request)
    model = asked.model or prepared.model.name
    form = MessageForm(prepared.requests[0].id, model, len(prepared.requests[0].prompt_ids), prepared.note)
    if asked.stream:
        return await stream_answer(request, prepared, form, EventWriter(request), named_frames)
    (answer,) = await whole_answers(request.app[CONTEXT], prepared)
    return web.json_response(form.whole(answer))


async def count_tokens(request: web.Request) -> web.Response:
    """POST /v1/messages/count_tokens."""
    _, prepared = await _prepared(request)
    return web.json_response({"input_tokens": len(prepared.requests[0].prompt_ids)})


async def _prepared(request: web.Request) -> tuple[Asked, Prepared]:
    asked = read_chat(translate(await read_json(request)), request.headers.get(PRIVACY_HEADER))
    return asked, await prepared_for(request, asked, f"msg_{secrets.token_hex(12)}")
