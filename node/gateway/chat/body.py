"""Reads a request's body in OpenAI's form strictly: what cannot be done is refused, never silently ignored.

The other APIs are translated into this form first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.gateway.chat.asked import Asked, Prompt
from node.gateway.chat.fields import (
    MAX_ANSWERS,
    SAMPLING,
    read_cache_key,
    read_draft,
    read_flag,
    read_lend,
    read_numbers,
    read_pad_output,
    read_privacy,
    read_sampling,
    read_speculate,
    read_stream,
    read_template_values,
)
from node.gateway.chat.form import FORM_FIELDS, read_form
from node.gateway.chat.messages import check_length, check_text, read_messages
from node.gateway.chat.tools import read_tools
from node.gateway.http.errors import ApiError, invalid, unsupported

COMMON = frozenset(
    {
        "best_of",
        "draft",
        "lend",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "pad_output",
        "privacy",
        "prompt_cache_key",
        "seed",
        "speculate",
        "stop",
        "stop_token_ids",
        "stream",
        "stream_options",
        *FORM_FIELDS,
        *SAMPLING,
    }
)
IGNORED = frozenset(
    {
        "metadata",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
"""Fields that do not affect the answer's text. A chat is never stored, whatever `store` says."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "reasoning_effort": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""Fields for things that this gateway cannot do in a request, and the values (besides null) that do not ask for
them."""
CHAT = frozenset(
    {
        "chat_template_kwargs",
        "max_completion_tokens",
        "messages",
        "parallel_tool_calls",
        "reasoning_effort",
        "tool_choice",
        "tools",
        "top_logprobs",
    }
)
COMPLETION = frozenset({"echo", "prompt"})


def read_chat(body: Mapping[str, Any], header: str | None) -> Asked:
    """Read the body of /v1/chat/completions; raises ApiError 400."""
    asked = _read_common(body, header, CHAT)
    tools = read_tools(body)
    if tools is not None and tools.must_call and asked["form"] is not None:
        raise invalid(f"{asked['form'].asked_by} and a required tool call exclude each other", asked["form"].asked_by)
    return Asked(
        **asked,
        messages=read_messages(body.get("messages")),
        tools=tools,
        template_values=read_template_values(body),
    )


def read_completion(body: Mapping[str, Any], header: str | None) -> Asked:
    """Read the body of /v1/completions; raises ApiError 400."""
    asked = _read_common(body, header, COMPLETION)
    echo = read_flag(body, "echo")
    if echo and asked["sampling"].get("logprobs") is not None:
        raise unsupported("echo with logprobs is not supported: the prompt's own are not computed", "echo")
    return Asked(**asked, prompts=_prompts(body.get("prompt"), asked["best_of"]), echo=echo)


def read_generate(body: Mapping[str, Any]) -> Asked:
    """Read the operation `generate` of /ws, which has messages or a prompt; raises ApiError 400."""
    given = {name: value for name, value in body.items() if name not in ("op", "id", "request")}
    if (given.get("messages") is None) == (given.get("prompt") is None):
        raise invalid("give either messages or a prompt", "messages")
    read = read_chat if given.get("messages") is not None else read_completion
    asked = read({**given, "model": given.get("model") or ""}, None)
    is_plain = asked.best_of == 1 and len(asked.prompts) < 2 and asked.tools is None and not asked.echo
    if not is_plain or asked.sampling.get("logprobs") is not None:
        raise unsupported("here is one answer to one prompt, without tools or logprobs: use /v1 for more", "n")
    return asked


def _prompts(given: Any, answers: int) -> tuple[Prompt, ...]:
    """The prompts: one, or a list of them."""
    return read_texts(given, "prompt", MAX_ANSWERS // answers)


def read_texts(given: Any, name: str, most: int) -> tuple[Prompt, ...]:
    """One text or a list of texts, each as characters or as tokens; raises ApiError 400, which names the field."""
    are_several = isinstance(given, list) and given and not all(type(token) is int for token in given)
    if are_several and len(given) > most:
        raise invalid(f"these are {len(given)} texts, {most} at most: ask for fewer", name)
    texts = tuple(_prompt(text, name) for text in given) if are_several else (_prompt(given, name),)
    check_length(sum(map(len, texts)), name)
    return texts


def _prompt(prompt: Any, name: str) -> Prompt:
    if isinstance(prompt, str):
        check_length(len(prompt), name)
        check_text(prompt, name)
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise invalid(f"{name} must be a text, or its tokens, or a list of such", name)


def _read_common(body: Mapping[str, Any], header: str | None, own: frozenset[str]) -> dict[str, Any]:
    for name, value in body.items():
        if name in COMMON or name in own or name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            raise ApiError(400, f"the field {name[:64]!r} is unknown: leave it out", "unknown_parameter", name)
        if not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL[name]):
            raise unsupported(f"{name} is not supported: leave it out", name)
    model = body.get("model")
    if not isinstance(model, str):
        raise invalid("model must be the name of a model; GET /v1/models lists them", "model")
    stream, usage = read_stream(body)
    num_answers, best_of = read_numbers(body)
    return {
        "model": model or None,
        "privacy": read_privacy(body.get("privacy"), header),
        "lend": read_lend(body.get("lend")),
        "speculate": read_speculate(body.get("speculate")),
        "draft": read_draft(body.get("draft")),
        "pad_output": read_pad_output(body.get("pad_output")),
        "sampling": read_sampling(body),
        "form": read_form(body),
        "stream": stream,
        "include_usage": usage,
        "cache_key": read_cache_key(body.get("prompt_cache_key")),
        "num_answers": num_answers,
        "best_of": best_of,
    }
