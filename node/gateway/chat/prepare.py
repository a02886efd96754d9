"""Turns a body into requests to the engine: finds the model, renders the prompt, makes its tokens. It blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from node.engine import Engine, GenerationRequest
from node.engine.drafts import check_draft
from node.errors import PromptError
from node.gateway.chat.asked import Asked, Prompt, sampling_params
from node.gateway.chat.dialect import (
    HERMES,
    THOUGHT_BEGINS,
    THOUGHT_ENDS,
    Dialect,
    GrammarWriter,
    Thinking,
    dialect_of,
    instructions,
    thinking_of,
)
from node.gateway.chat.tools import ANY_OBJECT, Tool, Tools
from node.gateway.http.errors import invalid
from node.model.sampling import MAX_SEED
from node.model.template import ChatTemplate
from node.store.stored import StoredModel

if TYPE_CHECKING:
    from node.model.guide import Guide


class Prepared(Struct, frozen=True):
    """Requests to the engine, and how their answers are read."""

    requests: tuple[GenerationRequest, ...]
    """`best_of` for each prompt, prompt by prompt."""
    dialect: Dialect | None = None
    """How calls of tools are written; None if none is looked for."""
    thinking: Thinking = Thinking()
    parallel: bool = True
    """Whether an answer may have more than one call."""
    echoes: tuple[str, ...] = ()
    """For each request the text that its answer begins with."""
    note: str | None = None
    """What the reader of the receipt should know."""

    @property
    def model(self) -> StoredModel:
        return self.requests[0].model


class _Rendered(Struct, frozen=True):
    """A prompt's tokens, and what is known of the answer."""

    token_ids: tuple[int, ...]
    continues: bool
    """Whether the answer continues the prompt's text."""
    dialect: Dialect | None = None
    thinking: Thinking = Thinking()
    note: str | None = None


def prepare(engine: Engine, asked: Asked, request_id: str, connection: str | None = None) -> Prepared:
    """The complete requests.

    Args:
        connection: names the connection over which it came. Requests over one connection, or with one
            `prompt_cache_key`, count as requests of one requester.

    Raises:
        ApiError, KekahydeError: the request cannot be served; the text says why.
    """
    model = engine.models.resolve(asked.model)
    params = sampling_params(asked, model)
    conversation = connection if asked.cache_key is None else f"key {asked.cache_key}"
    rendered = [_chat(asked, model)] if asked.messages is not None else [_text(one, model) for one in asked.prompts]
    first = rendered[0]
    guide, note = _guide(asked, first, model)
    words = _words(first)
    base = GenerationRequest(
        request_id,
        model,
        (),
        params,
        asked.privacy,
        False,
        asked.lend,
        guide=guide,
        words_shown=words,
        pooling=asked.pooling,
        speculate=asked.speculate,
        draft=_draft(engine, asked, model),
        pad_output=asked.pad_output,
    )
    requests = [
        replace(
            base,
            id=request_id if index == 0 else f"{request_id}-{index}",
            prompt_ids=prompt.token_ids,
            continues=prompt.continues,
            params=replace(params, seed=((params.seed or 0) + index) & MAX_SEED),
            conversation=conversation,
            siblings=f"{request_id}-{index // asked.best_of}" if asked.best_of > 1 else None,
        )
        for index, prompt in enumerate(prompt for prompt in rendered for _ in range(asked.best_of))
    ]
    parallel = asked.tools is None or asked.tools.parallel
    echoes = [model.tokenizer().decode(request.prompt_ids) for request in requests] if asked.echo else []
    return Prepared(tuple(requests), first.dialect, first.thinking, parallel, tuple(echoes), note or first.note)


def _draft(engine: Engine, asked: Asked, model: StoredModel) -> StoredModel | None:
    """The model that guesses tokens, if one does. Raises ApiError if it cannot do so for this model."""
    if asked.pooling is not None or asked.speculate == 0 or asked.draft == "":
        return None
    if asked.draft is None:
        return engine.models.draft_for(model)
    draft = engine.models.resolve(asked.draft)
    try:
        check_draft(draft, model)
    except PromptError as exc:
        raise invalid(str(exc), "draft") from exc
    return draft


def _text(prompt: Prompt, model: StoredModel) -> _Rendered:
    return _Rendered(tuple(prompt if isinstance(prompt, list) else model.tokenizer().encode(prompt)), True)


def _chat(asked: Asked, model: StoredModel) -> _Rendered:
    """The prompt of a chat.

    A model without a chat template can only continue a text: it gets the contents of all messages, one per line.
    """
    template, tools = model.chat_template, asked.tools
    messages = asked.messages or []
    if tools is not None and not tools.may_call:
        tools = None
    dialect = None if template is None or tools is None else dialect_of(template.source)
    note = None
    if tools is not None and dialect is None:
        if tools.must_call:
            messages, dialect = _instructed(messages, tools.offered), HERMES
        else:
            note = f"the model {model.name} knows no tools: answered without"
    if template is None:
        text = "\n".join(message["content"] for message in messages)
        return _Rendered(tuple(model.tokenizer().encode(text)), True, dialect, note=note)
    prompt = _render(template, messages, tools if dialect_of(template.source) else None, asked)
    token_ids = model.tokenizer().encode(prompt, add_special=False)
    return _Rendered(tuple(token_ids), False, dialect, thinking_of(template.source, prompt), note)


def _render(template: ChatTemplate, messages: Sequence[dict[str, Any]], tools: Tools | None, asked: Asked) -> str:
    described = None if tools is None else tools.described
    return template.render(messages, tools=described, values=asked.template_values)


def _instructed(messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The messages with the tools described in the system message."""
    told = instructions(tools)
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{told}"}, *messages[1:]]
    return [{"role": "system", "content": told}, *messages]


def _words(rendered: _Rendered) -> tuple[str, ...]:
    """Words that the answer's reader looks for."""
    thoughts = (THOUGHT_BEGINS, THOUGHT_ENDS) if rendered.thinking.possible else ()
    return (*(rendered.dialect.markers if rendered.dialect else ()), *thoughts)


def _guide(asked: Asked, rendered: _Rendered, model: StoredModel) -> tuple[Guide | None, str | None]:
    """The grammar that the answer must follow, if any, and a note about it.

    Raises:
        ApiError: it cannot be followed; it names the field, and what it is in the grammar.
    """
    if asked.form is None and (rendered.dialect is None or asked.tools is None):
        return None, None
    from node.model.guide import Guide, lark_grammar

    try:
        tokens = model.guide_tokens
        special = tokens.special_ids(_words(rendered))
    except PromptError:  # this tokenizer allows no grammar
        if asked.form is not None or (asked.tools is not None and asked.tools.must_call):
            raise
        return None, None
    if asked.form is not None:
        form = asked.form
        written = form.grammar or GrammarWriter(special).text(form.expression, rendered.thinking)
        try:
            return Guide(tokens, lark_grammar(written)), None
        except PromptError as exc:
            raise invalid(f"{form.asked_by} cannot be followed: {exc}", form.asked_by) from exc
    assert asked.tools is not None and rendered.dialect is not None

    def guided(tools: Tools) -> Guide:
        assert rendered.dialect is not None
        return Guide(tokens, lark_grammar(GrammarWriter(special).calls(tools, rendered.dialect, rendered.thinking)))

    try:
        return guided(asked.tools), None
    except PromptError:  # only then: which of the schemas is it
        tools, loosened = _followable(asked.tools, model)
    try:
        return guided(tools), f"the arguments of {', '.join(loosened)} are JSON, but not checked by their schema"
    except PromptError as exc:
        raise invalid(f"tools cannot be followed: {exc}", "tools") from exc


def _followable(tools: Tools, model: StoredModel) -> tuple[Tools, list[str]]:
    """The tools with only such schemas as a grammar can have; and the names of those that were made looser."""
    from node.model.guide import Guide

    tokens, offered, loosened = model.guide_tokens, [], []
    for tool in tools.offered:
        try:
            Guide(tokens, GrammarWriter({}).text(f"%json {json.dumps(tool.parameters)}", Thinking()))
            offered.append(tool)
        except PromptError:
            offered.append(replace(tool, parameters=ANY_OBJECT))
            loosened.append(tool.name)
    return replace(tools, offered=tuple(offered)), loosened
