"""Turns a body into a request to the engine: finds the model, renders the prompt, makes its tokens. It blocks."""

from __future__ import annotations

from node.engine import Engine, GenerationRequest
from node.gateway.openai.body import Asked, sampling_params
from node.store.stored import StoredModel


def prepare(engine: Engine, asked: Asked, request_id: str, connection: str | None = None) -> GenerationRequest:
    """The complete request.

    Args:
        connection: names the connection over which it came. Requests over one connection, or with one
            `prompt_cache_key`, count as requests of one requester.

    Raises:
        ApiError, KekahydeError: the request cannot be served; the text says why.
    """
    model = engine.models.resolve(asked.model)
    params = sampling_params(asked, model)
    token_ids, continues = _tokens(asked, model)
    conversation = connection if asked.cache_key is None else f"key {asked.cache_key}"
    return GenerationRequest(
        request_id, model, tuple(token_ids), params, asked.privacy, continues, asked.lend, conversation
    )


def _tokens(asked: Asked, model: StoredModel) -> tuple[list[int], bool]:
    """Tokens of the prompt, and whether the answer continues its text.

    A model without a chat template can only continue a text: it gets the contents of all messages, one per line.
    """
    if asked.messages is None:
        if isinstance(asked.prompt, list):
            return asked.prompt, True
        assert asked.prompt is not None
        return model.tokenizer().encode(asked.prompt), True
    template = model.chat_template
    if template is None:
        text = "\n".join(message["content"] for message in asked.messages)
        return model.tokenizer().encode(text), True
    return model.tokenizer().encode(template.render(asked.messages), add_special=False), False
