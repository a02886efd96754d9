"""`/v1/...`: the handlers, as OpenAI's clients expect them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from node.engine.request import Completed, Event, Token
from node.gateway.chat.answer import Answer
from node.gateway.chat.asked import Asked
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_chat, read_completion
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.sse import DONE, EventWriter, frame
from node.gateway.chat.stream import generations
from node.gateway.chat.whole import whole_answers
from node.gateway.http.app import read_json
from node.gateway.http.context import CONTEXT, GatewayContext
from node.gateway.http.errors import PRIVACY_HEADER, ApiError
from node.gateway.openai.answers import AnswerForm, model_object


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
    prepared = await prepared_for(request, asked, answer_id)
    form = AnswerForm(
        answer_id,
        int(time.time()),
        asked.model or prepared.model.name,
        prepared.model.tokenizer(),
        chat,
        asked.include_usage,
        len(prepared.requests) // asked.best_of,
        prepared.note,
    )
    if asked.stream:
        return await _streamed(request, context, prepared, form)
    answers = await whole_answers(context, prepared)
    return web.json_response(form.whole(_best(answers, asked), answers))


def _best(answers: Sequence[Answer], asked: Asked) -> list[Answer]:
    """The answers that are given: of those to each prompt the likeliest."""
    if asked.best_of == asked.num_answers:
        return list(answers)
    groups = [answers[start : start + asked.best_of] for start in range(0, len(answers), asked.best_of)]
    ranked = [sorted(group, key=lambda answer: -answer.mean_logprob) for group in groups]
    return [answer for group in ranked for answer in group[: asked.num_answers]]


async def _streamed(
    request: web.Request, context: GatewayContext, prepared: Prepared, form: AnswerForm
) -> web.StreamResponse:
    answers = [Answer(prepared, index) for index in range(len(prepared.requests))]
    async with generations(context.engine, prepared.requests) as events:
        writer = EventWriter(request)
        await writer.open()
        try:
            await writer.write([frame(chunk) for answer in answers for chunk in _opening(answer, form)])
            left = len(answers)
            while left:
                frames, ended = _frames(await events.take(writer.due_s), answers, form)
                left = left - ended if ended >= 0 else 0
                if not left and ended >= 0:
                    frames += [*(frame(chunk) for chunk in form.usage(answers)), DONE]
                await writer.write(frames)
            return await writer.close()
        except (TimeoutError, ConnectionError):
            return writer.abort()


def _opening(answer: Answer, form: AnswerForm) -> list[dict[str, Any]]:
    return [*form.opening(answer.index), *form.pieces(answer, answer.opening(), ())]


def _frames(
    events: Sequence[tuple[int, Event]], answers: Sequence[Answer], form: AnswerForm
) -> tuple[list[bytes], int]:
    """The frames to send for these events, and how many answers ended with them; -1 if one failed."""
    frames: list[bytes] = []
    ended = 0
    for index, event in events:
        answer = answers[index]
        known = len(answer.tokens)
        try:
            pieces = answer.read(event)
        except ApiError as exc:
            return [*frames, frame(exc.as_json())], -1
        tokens = answer.tokens[known:] if isinstance(event, Token) else []
        frames += [frame(chunk) for chunk in form.pieces(answer, pieces, tokens)]
        if isinstance(event, Completed):
            frames += [frame(chunk) for chunk in form.closing(answer)]
            ended += 1
    return frames, ended
