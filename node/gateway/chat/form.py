"""Reads which form an answer must have: response_format, guided_json and the like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from node.gateway.chat.asked import Form
from node.gateway.chat.messages import check_text
from node.gateway.http.app import parse_json
from node.gateway.http.errors import invalid, unsupported

MAX_CHOICES = 1024
FORM_FIELDS = ("response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
"""The last four are vLLM's."""
WHITESPACE = r"[ \n\r\t]{0,40}"
"""Between the parts of JSON. Without a bound a weak model may write nothing else for ever."""


def read_form(body: Mapping[str, Any]) -> Form | None:
    """The form that is asked for; None for any text. Raises ApiError 400."""
    given = [name for name in FORM_FIELDS if body.get(name) is not None]
    if given == ["response_format"] or not given:
        return _response_format(body.get("response_format"))
    if len(given) > 1 and given[0] == "response_format" and body["response_format"] == {"type": "text"}:
        given = given[1:]
    if len(given) > 1:
        raise invalid(f"{' and '.join(given)} differ: give one of them", given[1])
    (name,) = given
    value = body[name]
    for text in value if _are_texts(value) else [value]:
        if isinstance(text, str):
            check_text(text, name)
    match name:
        case "guided_json":
            return _schema(value, name)
        case "guided_regex" if isinstance(value, str) and value:
            return Form(name, _regex(value))
        case "guided_choice" if _are_texts(value):
            return Form(name, " | ".join(json.dumps(text, ensure_ascii=False) for text in value))
        case "guided_grammar" if isinstance(value, str) and value:
            return Form(name, grammar=value)
        case "guided_choice":
            raise invalid(f"guided_choice must be a list of 1 to {MAX_CHOICES} texts", name)
        case _:
            raise invalid(f"{name} must be text", name)


def json_rule(schema: Mapping[str, Any]) -> str:
    """A JSON schema as a rule of a Lark grammar. A schema's own `x-guidance`, the library's options, counts first."""
    given = schema.get("x-guidance")
    options = {"whitespace_pattern": WHITESPACE} | (given if isinstance(given, dict) else {})
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def _response_format(value: Any) -> Form | None:
    kind = value.get("type") if isinstance(value, dict) else None
    match kind:
        case None if value is None:
            return None
        case "text":
            return None
        case "json_object":
            return Form("response_format", json_rule({"type": "object"}))
        case "json_schema":
            given = value.get("json_schema")
            if not isinstance(given, dict):
                raise invalid("response_format.json_schema must be an object with a schema", "response_format")
            return _schema(given.get("schema"), "response_format")
        case _:
            raise unsupported("response_format has type text, json_object or json_schema", "response_format")


def _schema(value: Any, name: str) -> Form:
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as exc:
            raise invalid(f"{name} must be a JSON schema", name) from exc
    if not isinstance(value, dict):
        raise invalid(f"{name} must have a JSON schema, which is an object", name)
    return Form(name, json_rule(value))


def _regex(pattern: str) -> str:
    """A regular expression as Lark writes it, between slashes."""
    from llguidance import regex_to_lark  # its import takes as long as all others of the gateway

    return f"/{regex_to_lark(pattern)}/"


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MAX_CHOICES and all(isinstance(text, str) for text in value)
