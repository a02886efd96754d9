"""`/v1/responses`: the handler, as OpenAI's clients expect it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from node.gateway.chat.answer import Answer
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.sse import EventWriter, named_frames
from node.gateway.chat.streaming import stream_answer
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT
from node.gateway.http.errors import PRIVACY_HEADER
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

    def keep(answer: Answer) -> None:
        _remember(request, prepared, answer, body, earlier)

    if asked.stream:
        return await stream_answer(request, prepared, form, EventWriter(request), named_frames, keep)
    (answer,) = await whole_answers(context, prepared)
    keep(answer)
    return web.json_response(form.whole(answer))


def _remember(
    request: web.Request,
    prepared: Prepared,
    answer: Answer,
    body: Mapping[str, Any],
    earlier: Sequence[dict[str, Any]],
) -> None:
    """Keep the conversation, unless the program says `store: false`."""
    if body.get("store") is False:
        return
    said: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    request.app[REMEMBERED].keep(prepared.requests[0].id, [*earlier, *input_messages(body.get("input")), said])
