"""What a program asks for, checked."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from msgspec import Struct

from node.errors import PromptError
from node.gateway.chat.tools import Tools
from node.gateway.http.errors import invalid
from node.model.pool import Pooling
from node.model.sampling import MAX_TOKENS, SamplingParams
from node.planning.placement import Lend
from node.privacy import Privacy
from node.store.stored import StoredModel
from protocol.discreet import Discreet

Prompt = str | list[int]
"""A text, or its tokens."""


class Form(Struct, frozen=True):
    """The form that an answer must have."""

    asked_by: str
    """The field that asks for it."""
    expression: str = ""
    """An expression in llguidance's form of Lark."""
    grammar: str = ""
    """A whole grammar instead, in Lark or GBNF."""


class Asked(Discreet, Struct, frozen=True):
    """A checked body; the model is still only a name."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("messages", "prompts", "cache_key", "tools", "form", "template_values")
    model: str | None
    privacy: Privacy
    lend: Lend | None
    sampling: dict[str, Any]
    speculate: int | None = None
    """Rows of a pass with guessed tokens; 0: none; None: where that is predicted to pay."""
    draft: str | None = None
    """Name of the model that guesses them; None: as the node was started; empty: the text itself is looked up."""
    pad_output: int = 0
    """The passes behind the prompt that peers see are filled up to a multiple of this."""
    messages: list[dict[str, Any]] | None = None
    prompts: tuple[Prompt, ...] = ()
    stream: bool = False
    include_usage: bool = False
    cache_key: str | None = None
    """`prompt_cache_key`: the program's name for this conversation."""
    tools: Tools | None = None
    form: Form | None = None
    num_answers: int = 1
    """To each prompt."""
    best_of: int = 1
    """So many answers are computed, and the likeliest are given."""
    echo: bool = False
    """Whether an answer begins with its prompt."""
    pooling: Pooling | None = None
    """Vectors of the prompts are asked for, not answers."""
    template_values: dict[str, Any] = {}
    """More names that the chat template may use."""


def sampling_params(asked: Asked, model: StoredModel) -> SamplingParams:
    """The model's defaults, overridden by what was asked for; raises ApiError that names the field."""
    wanted = dict(asked.sampling)
    wanted.setdefault("seed", secrets.randbits(32))
    if asked.best_of > asked.num_answers:
        wanted.setdefault("logprobs", 0)  # by which the best are chosen
    defaults = dict(model.generation_config)
    limit = defaults.get("max_new_tokens")
    if asked.messages is not None and not (type(limit) is int and 0 < limit <= MAX_TOKENS):
        defaults["max_new_tokens"] = model.config.context_length
    try:
        return SamplingParams.from_generation_config(defaults, **wanted)
    except PromptError as exc:
        message = str(exc)
        raise invalid(message, message.split(" ", 1)[0]) from exc
