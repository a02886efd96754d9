"""Translates a body of /v1/responses into that of a chat, which is then read strictly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from node.gateway.http.errors import ApiError, invalid, unsupported

SAME = frozenset(
    {
        "draft",
        "lend",
        "speculate",
        "metadata",
        "min_p",
        "model",
        "pad_output",
        "parallel_tool_calls",
        "privacy",
        "prompt_cache_key",
        "safety_identifier",
        "seed",
        "service_tier",
        "stream",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
    }
)
OWN = frozenset(
    {
        "input",
        "instructions",
        "max_output_tokens",
        "previous_response_id",
        "reasoning",
        "store",
        "text",
        "tool_choice",
        "tools",
    }
)
IGNORED = frozenset({"include", "stream_options", "truncation", "max_tool_calls", "prompt_cache_retention"})
TEXT_PARTS = frozenset({"input_text", "output_text", "text"})


def translate(body: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of the chat. Raises ApiError 400 for what has no equivalent.

    Args:
        earlier: messages of the responses that this one continues, without instructions.
    """
    for name, value in body.items():
        if name not in SAME and name not in OWN and name not in IGNORED and value not in (None, [], False):
            raise ApiError(400, f"the field {name[:64]!r} is not supported: leave it out", "unknown_parameter", name)
    asked: dict[str, Any] = {name: body[name] for name in SAME if body.get(name) is not None}
    if "top_logprobs" in asked:
        asked["logprobs"] = True
    if body.get("max_output_tokens") is not None:
        asked["max_tokens"] = body["max_output_tokens"]
    instructions = body.get("instructions")
    before = [{"role": "system", "content": instructions}] if instructions else []
    asked["messages"] = [*before, *earlier, *input_messages(body.get("input"))]
    if body.get("tools"):
        asked["tools"] = _tools(body["tools"])
        if body.get("tool_choice") is not None:
            asked["tool_choice"] = _choice(body["tool_choice"])
    reasoning, text = body.get("reasoning"), body.get("text")
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        asked["reasoning_effort"] = reasoning["effort"]
    if isinstance(text, dict) and isinstance(text.get("format"), dict):
        asked["response_format"] = _format(text["format"])
    return asked


def input_messages(given: Any) -> list[dict[str, Any]]:
    """The input as messages of a chat."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise invalid("input must be text, or a list of items", "input")
    return list(_messages(given))


def _messages(items: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Calls that follow one another are one message, as a chat has them."""
    calls: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind != "function_call" and calls:
            yield {"role": "assistant", "content": "", "tool_calls": calls}
            calls = []
        match kind:
            case "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                calls.append({"id": item.get("call_id"), "type": "function", "function": function})
            case "function_call_output":
                output = _text(item.get("output"), where)
                yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
            case "message":
                yield {"role": item.get("role"), "content": _text(item.get("content"), where)}
            case "reasoning":
                pass  # thoughts of earlier answers are dropped, as the templates do
            case _:
                raise unsupported(f"{where} is of type {str(kind)[:32]!r}, which is not supported", where)
    if calls:
        yield {"role": "assistant", "content": "", "tool_calls": calls}


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(f"{where} must have text, or a list of parts", where)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise unsupported(f"{where} has a part of type {str(kind)[:32]!r}: only text is supported", where)
        texts.append(part["text"])
    return "".join(texts)


def _tools(tools: Any) -> list[dict[str, Any]]:
    if not isinstance(tools, list):
        raise invalid("tools must be a list", "tools")
    return [
        {"type": "function", "function": {name: tool.get(name) for name in ("name", "description", "parameters")}}
        if isinstance(tool, dict) and tool.get("type") == "function"
        else tool
        for tool in tools
    ]


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _format(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": given.get("name"), "schema": given.get("schema")}}
    return given
