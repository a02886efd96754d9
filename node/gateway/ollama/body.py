"""Translates a body of Ollama's API into OpenAI's form, which is then read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from node.gateway.http.errors import ApiError, invalid, unsupported

OPTIONS = {
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "num_predict": "max_tokens",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
"""Ollama's names of options, and OpenAI's or vLLM's."""
IGNORED_OPTIONS = frozenset(
    {
        "low_vram",
        "main_gpu",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_thread",
        "numa",
        "repeat_last_n",
        "use_mmap",
        "use_mlock",
        "vocab_only",
    }
)
"""Options of a machine, not of an answer. The context is always the model's own."""
SAME = frozenset({"draft", "lend", "model", "pad_output", "privacy", "speculate", "stream", "tools"})
CHAT = frozenset({"format", "keep_alive", "messages", "options", "think"})
GENERATE = frozenset({"format", "keep_alive", "options", "prompt", "raw", "system", "think"})


def translate_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of /api/chat in OpenAI's form. Raises ApiError 400 for what has no equivalent."""
    _check_fields(body, CHAT)
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise invalid("messages must be a list of messages", "messages")
    return {**_common(body), "messages": [_message(message, index) for index, message in enumerate(messages)]}


def translate_generate(body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The body of /api/generate in OpenAI's form, and whether that is a chat's. `raw` continues the prompt."""
    _check_fields(body, GENERATE)
    prompt, system = body.get("prompt") or "", body.get("system")
    if not isinstance(prompt, str) or not isinstance(system, str | None):
        raise invalid("prompt and system must be text", "prompt")
    common = _common(body)
    if body.get("raw") is True:
        return {
            **{name: value for name, value in common.items() if not name.startswith("chat_")},
            "prompt": prompt,
        }, False
    before = [{"role": "system", "content": system}] if system else []
    return {**common, "messages": [*before, {"role": "user", "content": prompt}]}, True


def _check_fields(body: Mapping[str, Any], own: frozenset[str]) -> None:
    for name, value in body.items():
        if name not in SAME and name not in own and value not in (None, "", [], False):
            raise ApiError(400, f"the field {name[:64]!r} is not supported: leave it out", "unknown_parameter", name)


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: body[name] for name in SAME if body.get(name) not in (None, [])}
    asked["stream"] = body.get("stream") is not False  # Ollama streams unless it is told not to
    asked |= _options(body.get("options"))
    form = body.get("format")
    if form == "json":
        asked["response_format"] = {"type": "json_object"}
    elif isinstance(form, dict):
        asked["guided_json"] = form
    elif form not in (None, ""):
        raise invalid('format is "json" or a JSON schema', "format")
    think = body.get("think")
    if isinstance(think, bool):
        asked["chat_template_kwargs"] = {"enable_thinking": think}
    elif isinstance(think, str):
        asked["chat_template_kwargs"] = {"enable_thinking": True, "reasoning_effort": think}
    return asked


def _options(options: Any) -> dict[str, Any]:
    if not isinstance(options, dict | None):
        raise invalid("options must be an object", "options")
    asked: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if name in OPTIONS:
            asked[OPTIONS[name]] = value
        elif name not in IGNORED_OPTIONS:
            raise unsupported(f"the option {name[:64]!r} is not supported: leave it out", "options")
    if type(asked.get("max_tokens")) is int and asked["max_tokens"] < 0:
        del asked["max_tokens"]  # until the model ends, or its context
    if "repetition_penalty" in asked and asked["repetition_penalty"] == 0:
        del asked["repetition_penalty"]
    return asked


def _message(message: Any, index: int) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise invalid(f"messages[{index}] must be an object with role and content", f"messages[{index}]")
    if message.get("images"):
        raise unsupported(f"messages[{index}] has images: only text is supported", f"messages[{index}]")
    read = {"role": message.get("role"), "content": message.get("content") or ""}
    if message.get("role") == "tool":
        read |= {"tool_call_id": message.get("tool_call_id"), "name": message.get("tool_name") or message.get("name")}
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list):
            raise invalid(f"messages[{index}].tool_calls must be a list", f"messages[{index}]")
        read["tool_calls"] = json.loads(json.dumps(calls))
    return read
