"""Reads the messages of a chat strictly, in the form that chat templates expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.gateway.http.app import parse_json
from node.gateway.http.errors import ApiError, invalid, unsupported
from node.gateway.http.limits import MAX_MESSAGES, MAX_PROMPT_CHARACTERS

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
MAX_CALLS = 128
"""In one message."""
MAX_ID_CHARACTERS = 256


def read_messages(value: Any) -> list[dict[str, Any]]:
    """Read messages with plain text, calls of tools and their results; raises ApiError 400 for anything else."""
    if not isinstance(value, list) or not value:
        raise invalid("messages must be a list with at least one message", "messages")
    if len(value) > MAX_MESSAGES:
        raise invalid(f"there are {len(value)} messages, {MAX_MESSAGES} at most: send fewer", "messages")
    messages = [_message(message, f"messages[{index}]") for index, message in enumerate(value)]
    check_length(sum(len(message["content"]) for message in messages), "messages")
    return messages


def check_length(length: int, where: str) -> None:
    """Raises ApiError 413 if a prompt has too many characters."""
    if length > MAX_PROMPT_CHARACTERS:
        raise ApiError(
            413, f"{where} has more than {MAX_PROMPT_CHARACTERS} characters: shorten it", "too_long", where
        )


def check_text(text: str, where: str) -> None:
    """Raises ApiError 400 if a text is not Unicode."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise invalid(f"{where} has half a surrogate pair: send valid Unicode", where)


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise invalid(f"{where} must be an object with role and content", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{where}.role is {str(role)[:32]!r}; the roles are: {', '.join(ROLES)}", f"{where}.role")
    if message.get("function_call"):
        raise unsupported(
            f"{where}.function_call is the old form of tool_calls: send those", f"{where}.function_call"
        )
    read: dict[str, Any] = {"role": ROLES[role], "content": _content(message, role, f"{where}.content")}
    if role == "assistant":
        calls = message.get("tool_calls")
        if calls:
            read["tool_calls"] = _calls(calls, f"{where}.tool_calls")
        thought = message.get("reasoning_content")
        if isinstance(thought, str) and thought:
            check_text(thought, f"{where}.reasoning_content")
            read["reasoning_content"] = thought
    if role == "tool":
        for name in ("tool_call_id", "name"):
            if isinstance(message.get(name), str):
                read[name] = message[name][:MAX_ID_CHARACTERS]
    return read


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or len(calls) > MAX_CALLS:
        raise invalid(f"{where} must be a list of {MAX_CALLS} calls at most", where)
    return [_call(call, f"{where}[{index}]") for index, call in enumerate(calls)]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str):
        raise invalid(f"{where} must have a function with its name", where)
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # templates expect the object
        check_text(arguments, where)
        try:
            arguments = parse_json(arguments or "{}")
        except ValueError as exc:
            raise invalid(f"{where}.function.arguments must be JSON", where) from exc
    if not isinstance(arguments, dict | None):
        raise invalid(f"{where}.function.arguments must be a JSON object", where)
    named = {"id": call["id"][:MAX_ID_CHARACTERS]} if isinstance(call.get("id"), str) else {}
    return {**named, "type": "function", "function": {"name": name, "arguments": arguments or {}}}


def _content(message: Mapping[str, Any], role: str, where: str) -> str:
    """The text, which is given whole or in parts. An assistant's content may also be empty, or a refusal."""
    content, assistant = message.get("content"), role == "assistant"
    if content is None and assistant:
        content = message.get("refusal") or ""
    if isinstance(content, list):
        content = "".join(_part(part, assistant, where) for part in content)
    if not isinstance(content, str):
        raise invalid(f"{where} must be text", where)
    check_text(content, where)
    return content


def _part(part: Any, assistant: bool, where: str) -> str:
    """The text of one part of a content; it is in the field that has the type's name."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" and not (assistant and kind == "refusal"):
        raise unsupported(f"{where} has a part of type {str(kind)[:32]!r}: only text is supported", where)
    text = part.get(kind)
    if not isinstance(text, str):
        raise invalid(f"{where} has a part of type {kind} whose {kind} is not text", where)
    return text
