"""Reads how tokens are chosen, and other fields that all requests for answers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.gateway.http.errors import invalid, unsupported
from node.model.draft import MAX_WINDOW
from node.model.sampling import MAX_LOGPROBS
from node.planning.placement import Lend
from node.privacy import MAX_PAD_OUTPUT, Privacy

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "min_tokens",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
)
MAX_CACHE_KEY_CHARACTERS = 256
MAX_ANSWERS = 16
"""To one prompt; more would not be computed at the same time."""
MAX_SEED = (1 << 64) - 1


def read_sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """Values for `SamplingParams`; raises ApiError 400."""
    wanted = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    limits = {body[name] for name in ("max_tokens", "max_completion_tokens") if type(body.get(name)) is int}
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and type(body[name]) is not int:
            raise invalid(f"{name} must be a whole number above 0", name)
    if len(limits) > 1:
        raise invalid("max_tokens and max_completion_tokens differ: give one of them", "max_tokens")
    if limits:
        wanted["max_tokens"] = limits.pop()
    seed = body.get("seed")
    if type(seed) is int and -MAX_SEED <= seed <= MAX_SEED:
        seed &= MAX_SEED
    if seed is not None:
        wanted["seed"] = seed
    if not isinstance(wanted.get("ignore_eos", False), bool):
        raise invalid("ignore_eos must be true or false", "ignore_eos")
    stop = body.get("stop")
    if stop is not None and stop != []:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
            raise invalid("stop must be a text or a list of texts", "stop")
        wanted["stop"] = tuple(stops)
    stop_ids = body.get("stop_token_ids")
    if stop_ids is not None:
        if not isinstance(stop_ids, list):
            raise invalid("stop_token_ids must be a list of token ids", "stop_token_ids")
        wanted["stop_token_ids"] = tuple(stop_ids)
    if body.get("logit_bias"):
        wanted["logit_bias"] = _logit_bias(body["logit_bias"])
    logprobs = _logprobs(body)
    if logprobs is not None:
        wanted["logprobs"] = logprobs
    return wanted


def read_numbers(body: Mapping[str, Any]) -> tuple[int, int]:
    """n and best_of."""
    num_answers = _count(body, "n", 1)
    best_of = _count(body, "best_of", num_answers)
    if best_of < num_answers:
        raise invalid("best_of is smaller than n: give at least n", "best_of")
    if best_of > num_answers and body.get("stream"):
        raise invalid("best_of cannot be streamed, because the best is known at the end: leave one out", "best_of")
    return num_answers, best_of


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """true or false; false if it is not given."""
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise invalid(f"{name} must be true or false", name)
    return value is True


def read_stream(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """stream, and whether its last chunk has the usage."""
    stream = read_flag(body, "stream")
    options = body.get("stream_options")
    if options is None:
        return stream, False
    if not isinstance(options, dict) or not stream:
        raise invalid("stream_options must be an object, and only with stream: true", "stream_options")
    unknown = {name for name, value in options.items() if value} - {"include_usage", "include_obfuscation"}
    if unknown:
        raise unsupported(f"stream_options.{min(unknown)[:64]} is unknown: leave it out", "stream_options")
    return stream, options.get("include_usage") is True


def read_privacy(field_value: Any, header: str | None) -> Privacy:
    """The mode that the field or the header asks for; if both are given, they must agree."""
    wanted = header if field_value is None else field_value
    if header is not None and wanted != header:
        raise invalid("the field privacy and the header X-Kekahyde-Privacy differ: give one of them", "privacy")
    if wanted is None:
        return Privacy.AUTO
    modes = {mode.value: mode for mode in Privacy}
    if not isinstance(wanted, str) or wanted not in modes:
        raise invalid(f"privacy is {str(wanted)[:32]!r}; the modes are: {', '.join(modes)}", "privacy")
    return modes[wanted]


def read_lend(value: Any) -> Lend | None:
    """What is lent, if it is said."""
    if value is None:
        return None
    choices = {lend.value: lend for lend in Lend}
    if not isinstance(value, str) or value not in choices:
        raise invalid(f"lend is {str(value)[:32]!r}; the choices are: {', '.join(choices)}", "lend")
    return choices[value]


def read_speculate(value: Any) -> int | None:
    """Rows of a pass with guessed tokens, if it is said: "auto", "off", or a number."""
    if value is None or value == "auto":
        return None
    if value == "off":
        return 0
    if type(value) is not int or value not in range(2, MAX_WINDOW + 1):
        raise invalid(f"speculate is auto, off, or a whole number from 2 to {MAX_WINDOW}", "speculate")
    return value


def read_draft(value: Any) -> str | None:
    """The name of a draft model, if it is said."""
    if value is not None and not isinstance(value, str):
        raise invalid('draft is the name of a model, or "" for none', "draft")
    return value


def read_pad_output(value: Any) -> int:
    """Of what number the passes of an answer are to be a multiple, if it is said."""
    if value is None:
        return 0
    if type(value) is not int or value not in range(MAX_PAD_OUTPUT + 1):
        raise invalid(f"pad_output is a whole number from 0 to {MAX_PAD_OUTPUT}", "pad_output")
    return value


def read_cache_key(value: Any) -> str | None:
    """`prompt_cache_key`."""
    if value is not None and (not isinstance(value, str) or len(value) > MAX_CACHE_KEY_CHARACTERS):
        said = f"prompt_cache_key must be text of at most {MAX_CACHE_KEY_CHARACTERS} characters"
        raise invalid(said, "prompt_cache_key")
    return value


def read_template_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """chat_template_kwargs, and reasoning_effort, which templates that know it read."""
    values = body.get("chat_template_kwargs")
    if not isinstance(values, dict | None):
        raise invalid("chat_template_kwargs must be an object", "chat_template_kwargs")
    effort = body.get("reasoning_effort")
    if not isinstance(effort, str | None):
        raise invalid("reasoning_effort must be text", "reasoning_effort")
    if effort is None:
        return dict(values or {})
    return {"reasoning_effort": effort, "enable_thinking": effort not in ("none", "minimal"), **(values or {})}


def _count(body: Mapping[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not 1 <= value <= MAX_ANSWERS:
        raise invalid(f"{name} must be a whole number from 1 to {MAX_ANSWERS}", name)
    return value


def _logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or not all(len(name) < 10 and name.isascii() and name.isdigit() for name in value):
        raise invalid("logit_bias must be an object of token ids and numbers from -100 to 100", "logit_bias")
    return tuple((int(name), bias) for name, bias in value.items())


def _logprobs(body: Mapping[str, Any]) -> int | None:
    """How many alternatives are wanted: `logprobs: true` and top_logprobs in a chat, a number in a completion."""
    wanted, top = body.get("logprobs"), body.get("top_logprobs")
    if type(wanted) is int and "messages" not in body:
        wanted, top = True, wanted
    if not isinstance(wanted, bool | None):
        raise invalid("logprobs must be true or false; in a completion, a number", "logprobs")
    if top is not None and (type(top) is not int or not 0 <= top <= MAX_LOGPROBS):
        raise invalid(f"top_logprobs must be a whole number from 0 to {MAX_LOGPROBS}", "top_logprobs")
    if top and not wanted:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    return (top or 0) if wanted else None
