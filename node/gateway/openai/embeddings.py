"""`/v1/embeddings`: the handler, as OpenAI's clients expect it."""

from __future__ import annotations

import base64
import secrets
import struct
from typing import Any

from aiohttp import web

from node.gateway.chat.embedding import embedded, read_embedding
from node.gateway.http.app import read_json
from node.gateway.http.errors import PRIVACY_HEADER, invalid

LABEL = (
    "hidden states of a model that was trained to write, not to compare texts: good for rough likeness; a model for "
    "embeddings ranks better"
)


async def embeddings(request: web.Request) -> web.Response:
    """POST /v1/embeddings."""
    body = await read_json(request)
    asked = read_embedding(body, request.headers.get(PRIVACY_HEADER))
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise invalid("encoding_format must be float or base64", "encoding_format")
    answers = await embedded(request, asked, f"embd-{secrets.token_hex(12)}")
    receipts = [answer.receipt for answer in answers if answer.receipt is not None]
    tokens = sum(receipt.prompt_tokens for receipt in receipts)
    return web.json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _encoded(answer.vector, form)}
                for index, answer in enumerate(answers)
            ],
            "model": asked.model or receipts[0].model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "kekahyde": {"mode": receipts[0].mode, "model_id": receipts[0].model_id, "note": LABEL},
        }
    )


def _encoded(vector: tuple[float, ...], form: str) -> Any:
    return list(vector) if form == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
