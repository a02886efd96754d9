"""Vectors of texts: reads what is asked for, and has them computed a few at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from node.gateway.chat.answer import Answer
from node.gateway.chat.asked import Asked
from node.gateway.chat.asking import prepared_for
from node.gateway.chat.body import read_texts
from node.gateway.chat.fields import MAX_ANSWERS, read_lend, read_privacy
from node.gateway.chat.whole import whole_answers
from node.gateway.http.context import CONTEXT
from node.gateway.http.errors import invalid, unsupported
from node.model.pool import Pooling

FIELDS = frozenset({"dimensions", "encoding_format", "input", "lend", "model", "pooling", "privacy", "user"})
MAX_INPUTS = 2048
"""In one request; as OpenAI's own server."""


def read_embedding(body: Mapping[str, Any], header: str | None) -> Asked:
    """Read the body of /v1/embeddings; raises ApiError 400."""
    for name in body.keys() - FIELDS:
        raise unsupported(f"{name[:64]} is unknown for embeddings: leave it out", name)
    if body.get("dimensions") is not None:
        raise unsupported(
            "dimensions cannot be chosen: a vector has as many as the model's hidden state", "dimensions"
        )
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise invalid("model must be the name of a model", "model")
    pooling = next((one for one in Pooling if one.value == body.get("pooling", Pooling.MEAN.value)), None)
    if pooling is None:
        raise invalid("pooling must be mean or last", "pooling")
    return Asked(
        model,
        read_privacy(body.get("privacy"), header),
        read_lend(body.get("lend")),
        {"max_tokens": 1},
        prompts=read_texts(body.get("input"), "input", MAX_INPUTS),
        pooling=pooling,
    )


async def embedded(request: web.Request, asked: Asked, request_id: str) -> list[Answer]:
    """The answers with the vectors of all prompts, in their order. Raises ApiError."""
    answers: list[Answer] = []
    for start in range(0, len(asked.prompts), MAX_ANSWERS):
        few = replace(asked, prompts=asked.prompts[start : start + MAX_ANSWERS])
        prepared = await prepared_for(request, few, f"{request_id}-{start}", counts=start == 0)
        answers += await whole_answers(request.app[CONTEXT], prepared)
    return answers
