"""Reads a request's body strictly: what cannot be done is refused, never silently ignored."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

from node.errors import PromptError
from node.gateway.http.errors import ApiError
from node.gateway.http.limits import MAX_MESSAGES, MAX_PROMPT_CHARACTERS
from node.model.sampling import MAX_TOKENS, SamplingParams
from node.planning.placement import Lend
from node.privacy import Privacy
from node.store.stored import StoredModel
from protocol.discreet import Discreet

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
)
IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
    }
)
"""Fields that do not affect the answer's text."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields for things that this gateway cannot do, and the values (besides null) that do not ask for them."""
MAX_CACHE_KEY_CHARACTERS = 256
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MAX_SEED = (1 << 64) - 1


class Asked(Discreet, Struct, frozen=True):
    """A checked body; the model is still only a name."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("messages", "prompt", "cache_key")
    model: str | None
    privacy: Privacy
    lend: Lend | None
    sampling: dict[str, Any]
    messages: list[dict[str, str]] | None = None
    prompt: str | list[int] | None = None
    stream: bool = False
    include_usage: bool = False
    cache_key: str | None = None
    """`prompt_cache_key`: the program's name for this conversation."""


def read_chat(body: Mapping[str, Any], header: str | None) -> Asked:
    """Read the body of /v1/chat/completions; raises ApiError 400."""
    asked = _read_common(body, header, {"messages", "max_completion_tokens"})
    return Asked(**asked, messages=read_messages(body.get("messages")))


def read_completion(body: Mapping[str, Any], header: str | None) -> Asked:
    """Read the body of /v1/completions; raises ApiError 400."""
    asked = _read_common(body, header, {"prompt"})
    return Asked(**asked, prompt=_prompt(body.get("prompt")))


def read_generate(body: Mapping[str, Any]) -> Asked:
    """Read the operation `generate` of /ws, which has messages or a prompt; raises ApiError 400."""
    given = {name: value for name, value in body.items() if name not in ("op", "id", "request")}
    if (given.get("messages") is None) == (given.get("prompt") is None):
        raise _invalid("give either messages or a prompt", "messages")
    if given.get("messages") is not None:
        return read_chat({**given, "model": given.get("model") or ""}, None)
    return read_completion({**given, "model": given.get("model") or ""}, None)


def sampling_params(asked: Asked, model: StoredModel) -> SamplingParams:
    """The model's defaults, overridden by what was asked for; raises ApiError that names the field."""
    wanted = dict(asked.sampling)
    wanted.setdefault("seed", secrets.randbits(32))
    defaults = dict(model.generation_config)
    limit = defaults.get("max_new_tokens")
    if asked.messages is not None and not (type(limit) is int and 0 < limit <= MAX_TOKENS):
        defaults["max_new_tokens"] = model.config.context_length
    try:
        return SamplingParams.from_generation_config(defaults, **wanted)
    except PromptError as exc:
        message = str(exc)
        raise _invalid(message, message.split(" ", 1)[0]) from exc


def read_messages(value: Any) -> list[dict[str, str]]:
    """Read messages with plain text; raises ApiError 400 for anything else."""
    if not isinstance(value, list) or not value:
        raise _invalid("messages must be a list with at least one message", "messages")
    if len(value) > MAX_MESSAGES:
        raise _invalid(f"there are {len(value)} messages, {MAX_MESSAGES} at most: send fewer", "messages")
    messages = [_message(message, f"messages[{index}]") for index, message in enumerate(value)]
    _check_length(sum(len(message["content"]) for message in messages), "messages")
    return messages


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise _invalid(f"{where} must be an object with role and content", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _invalid(f"{where}.role is {str(role)[:32]!r}; the roles are: {', '.join(ROLES)}", f"{where}.role")
    if message.get("tool_calls") or message.get("function_call"):
        raise _unsupported(f"{where} has tool calls, which are not supported", f"{where}.tool_calls")
    return {"role": ROLES[role], "content": _content(message, role, f"{where}.content")}


def _content(message: Mapping[str, Any], role: str, where: str) -> str:
    """The text, which is given whole or in parts. An assistant's content may also be empty, or a refusal."""
    content, assistant = message.get("content"), role == "assistant"
    if content is None and assistant:
        content = message.get("refusal") or ""
    if isinstance(content, list):
        content = "".join(_part(part, assistant, where) for part in content)
    if not isinstance(content, str):
        raise _invalid(f"{where} must be text", where)
    _check_text(content, where)
    return content


def _part(part: Any, assistant: bool, where: str) -> str:
    """The text of one part of a content; it is in the field that has the type's name."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" and not (assistant and kind == "refusal"):
        raise _unsupported(f"{where} has a part of type {str(kind)[:32]!r}: only text is supported", where)
    text = part.get(kind)
    if not isinstance(text, str):
        raise _invalid(f"{where} has a part of type {kind} whose {kind} is not text", where)
    return text


def _prompt(prompt: Any) -> str | list[int]:
    """A text or its tokens; a list with one prompt counts as that prompt."""
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        _check_length(len(prompt), "prompt")
        _check_text(prompt, "prompt")
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        _check_length(len(prompt), "prompt")
        return prompt
    if isinstance(prompt, list) and len(prompt) > 1:
        raise _unsupported("there are several prompts: send one request for each", "prompt")
    raise _invalid("prompt must be a text, or its tokens", "prompt")


def _read_common(body: Mapping[str, Any], header: str | None, own: set[str]) -> dict[str, Any]:
    known = {"model", "privacy", "lend", "prompt_cache_key", "stream", "stream_options", "stop", "stop_token_ids"}
    known |= {"seed", "max_tokens", *SAMPLING, *own}
    for name, value in body.items():
        if name in known or name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            raise ApiError(400, f"the field {name[:64]!r} is unknown: leave it out", "unknown_parameter", name)
        if not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL[name]):
            raise _unsupported(f"{name} is not supported: leave it out", name)
    model = body.get("model")
    if not isinstance(model, str):
        raise _invalid("model must be the name of a model; GET /v1/models lists them", "model")
    stream, usage = _stream(body)
    return {
        "model": model or None,
        "privacy": _privacy(body.get("privacy"), header),
        "lend": _lend(body.get("lend")),
        "sampling": _sampling(body),
        "stream": stream,
        "include_usage": usage,
        "cache_key": _cache_key(body.get("prompt_cache_key")),
    }


def _cache_key(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_CACHE_KEY_CHARACTERS):
        said = f"prompt_cache_key must be text of at most {MAX_CACHE_KEY_CHARACTERS} characters"
        raise _invalid(said, "prompt_cache_key")
    return value


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    limits = {body[name] for name in ("max_tokens", "max_completion_tokens") if type(body.get(name)) is int}
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and type(body[name]) is not int:
            raise _invalid(f"{name} must be a whole number above 0", name)
    if len(limits) > 1:
        raise _invalid("max_tokens and max_completion_tokens differ: give one of them", "max_tokens")
    if limits:
        wanted["max_tokens"] = limits.pop()
    seed = body.get("seed")
    if type(seed) is int and -MAX_SEED <= seed <= MAX_SEED:
        seed &= MAX_SEED
    if seed is not None:
        wanted["seed"] = seed
    if not isinstance(wanted.get("ignore_eos", False), bool):
        raise _invalid("ignore_eos must be true or false", "ignore_eos")
    stop = body.get("stop")
    if stop is not None and stop != []:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
            raise _invalid("stop must be a text or a list of texts", "stop")
        wanted["stop"] = tuple(stops)
    stop_ids = body.get("stop_token_ids")
    if stop_ids is not None:
        if not isinstance(stop_ids, list):
            raise _invalid("stop_token_ids must be a list of token ids", "stop_token_ids")
        wanted["stop_token_ids"] = tuple(stop_ids)
    return wanted


def _stream(body: Mapping[str, Any]) -> tuple[bool, bool]:
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise _invalid("stream must be true or false", "stream")
    options = body.get("stream_options")
    if options is None:
        return stream, False
    if not isinstance(options, dict) or not stream:
        raise _invalid("stream_options must be an object, and only with stream: true", "stream_options")
    unknown = {name for name, value in options.items() if value} - {"include_usage", "include_obfuscation"}
    if unknown:
        raise _unsupported(f"stream_options.{min(unknown)[:64]} is unknown: leave it out", "stream_options")
    return stream, options.get("include_usage") is True


def _privacy(field_value: Any, header: str | None) -> Privacy:
    """The mode that the field or the header asks for; if both are given, they must agree."""
    wanted = header if field_value is None else field_value
    if header is not None and wanted != header:
        raise _invalid("the field privacy and the header X-Kekahyde-Privacy differ: give one of them", "privacy")
    if wanted is None:
        return Privacy.AUTO
    modes = {mode.value: mode for mode in Privacy}
    if not isinstance(wanted, str) or wanted not in modes:
        raise _invalid(f"privacy is {str(wanted)[:32]!r}; the modes are: {', '.join(modes)}", "privacy")
    return modes[wanted]


def _lend(value: Any) -> Lend | None:
    if value is None:
        return None
    choices = {lend.value: lend for lend in Lend}
    if not isinstance(value, str) or value not in choices:
        raise _invalid(f"lend is {str(value)[:32]!r}; the choices are: {', '.join(choices)}", "lend")
    return choices[value]


def _check_length(length: int, where: str) -> None:
    if length > MAX_PROMPT_CHARACTERS:
        raise ApiError(
            413, f"{where} has more than {MAX_PROMPT_CHARACTERS} characters: shorten it", "too_long", where
        )


def _check_text(text: str, where: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _invalid(f"{where} has half a surrogate pair: send valid Unicode", where)


def _invalid(message: str, param: str) -> ApiError:
    return ApiError(400, message, "invalid_value", param)


def _unsupported(message: str, param: str) -> ApiError:
    return ApiError(400, message, "unsupported_parameter", param)
