"""Translates a body of Anthropic's Messages into OpenAI's form, which is then read strictly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from node.gateway.http.errors import ApiError, invalid, unsupported

SAME = frozenset(
    {
        "draft",
        "lend",
        "max_tokens",
        "min_p",
        "model",
        "pad_output",
        "privacy",
        "seed",
        "speculate",
        "stream",
        "temperature",
        "top_k",
        "top_p",
    }
)
"""Fields of the same meaning in both; draft, lend, min_p, pad_output, privacy, seed and speculate are ours."""
IGNORED = frozenset(
    {
        "betas",
        "cache_control",
        "container",
        "context_management",
        "inference_geo",
        "metadata",
        "output_config",
        "service_tier",
        "speed",
    }
)
"""Fields that do not affect the answer's text, or only ask a server to do less or more of the same."""
OWN = frozenset({"messages", "stop_sequences", "system", "thinking", "tool_choice", "tools"})
CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def translate(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body in OpenAI's form. Raises ApiError 400 for what has no equivalent."""
    for name, value in body.items():
        if name not in SAME and name not in OWN and name not in IGNORED and value not in (None, []):
            raise ApiError(400, f"the field {name[:64]!r} is unknown: leave it out", "unknown_parameter", name)
    asked: dict[str, Any] = {name: body[name] for name in SAME if body.get(name) is not None}
    asked["messages"] = [*_system(body.get("system")), *_messages(body.get("messages"))]
    if body.get("stop_sequences"):
        asked["stop"] = body["stop_sequences"]
    if body.get("tools"):
        asked |= {"tools": _tools(body["tools"]), **_choice(body.get("tool_choice"))}
    thinking = body.get("thinking")
    if thinking is not None:
        kind = thinking.get("type") if isinstance(thinking, dict) else None
        if kind not in ("enabled", "disabled", "adaptive"):
            raise invalid("thinking has type enabled, adaptive or disabled", "thinking")
        asked["chat_template_kwargs"] = {"enable_thinking": kind != "disabled"}
    return asked


def _system(system: Any) -> list[dict[str, Any]]:
    text = _text(system, "system") if system is not None else ""
    return [{"role": "system", "content": text}] if text else []


def _messages(messages: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must be a list with at least one message", "messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            raise invalid(f"{where} must have the role user or assistant", where)
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise invalid(f"{where}.content must be text, or a list of blocks", where)
        yield from (_assistant if role == "assistant" else _user)(role, blocks, f"{where}.content")


def _assistant(role: str, blocks: list[dict[str, Any]], where: str) -> Iterator[dict[str, Any]]:
    """Thoughts of earlier answers are dropped, as the templates of all families do."""
    said = [block for block in blocks if block.get("type") not in ("thinking", "redacted_thinking", "tool_use")]
    calls = [
        {
            "id": block.get("id"),
            "type": "function",
            "function": {"name": block.get("name"), "arguments": block.get("input") or {}},
        }
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    yield {"role": role, "content": _text(said, where), **({"tool_calls": calls} if calls else {})}


def _user(role: str, blocks: list[dict[str, Any]], where: str) -> Iterator[dict[str, Any]]:
    """Results of tools are messages of their own in OpenAI's form, and come first."""
    for block in blocks:
        if block.get("type") == "tool_result":
            told = _text(block.get("content") or "", where)
            failed = "Error: " if block.get("is_error") is True else ""
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": f"{failed}{told}"}
    said = [block for block in blocks if block.get("type") != "tool_result"]
    if said:
        yield {"role": role, "content": _text(said, where)}


def _text(content: Any, where: str) -> str:
    """A text, or the texts of blocks, one after the other on lines of their own."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(f"{where} must be text, or a list of blocks", where)
    texts = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind != "text" or not isinstance(block.get("text"), str):
            raise unsupported(f"{where} has a block of type {str(kind)[:32]!r}: only text is supported", where)
        texts.append(block["text"])
    return "\n".join(texts)


def _tools(tools: Any) -> list[dict[str, Any]]:
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise invalid("tools must be a list of tools", "tools")
    for index, tool in enumerate(tools):
        if tool.get("type") not in (None, "custom"):
            kind = json.dumps(tool["type"])[:64]
            raise unsupported(f"tools[{index}] is of type {kind}, which only Anthropic's servers run", "tools")
    return [
        {
            "type": "function",
            "function": {
                "name": tool.get("name"),
                "description": tool.get("description"),
                "parameters": tool.get("input_schema"),
            },
        }
        for tool in tools
    ]


def _choice(choice: Any) -> dict[str, Any]:
    if choice is None:
        return {}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool":
        chosen: Any = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(kind, str) and kind in CHOICES:
        chosen = CHOICES[kind]
    else:
        raise invalid("tool_choice has type auto, any, tool or none", "tool_choice")
    return {"tool_choice": chosen, "parallel_tool_calls": choice.get("disable_parallel_tool_use") is not True}
