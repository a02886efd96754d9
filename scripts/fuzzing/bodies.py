"""Targets: what programs send to the gateway, from the bytes of a request to the grammar of an answer."""

from __future__ import annotations

import contextlib
import functools
import json
import select
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from node.errors import KekahydeError, ModelError, PromptError
from node.gateway.anthropic import body as anthropic
from node.gateway.chat.asked import Asked
from node.gateway.chat.body import read_chat, read_completion, read_generate
from node.gateway.chat.embedding import read_embedding
from node.gateway.chat.form import json_rule
from node.gateway.chat.prepare import prepare
from node.gateway.http.app import parse_object
from node.gateway.http.errors import ApiError
from node.gateway.ollama import body as ollama
from node.gateway.openai import response_body
from node.model.guide import Guide, lark_grammar
from scripts.fuzzing.forms import JSON, REQUEST
from scripts.fuzzing.served import PATIENCE_S, served
from scripts.fuzzing.target import Target

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20, "pattern": "^[a-z]+$"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 7}, "maxItems": 3},
        "unit": {"enum": ["c", "f", None]},
        "more": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/one"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"one": {"const": True}},
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "now", "parameters": SCHEMA}}
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "warm"},
    ],
    "max_tokens": 4,
    "temperature": 0.7,
    "seed": 5,
    "stop": ["b"],
    "logit_bias": {"3": -100},
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "privacy": "local",
}
TEXT: dict[str, Any] = {
    "model": "tiny",
    "prompt": ["a b", "ab"],
    "max_tokens": 4,
    "echo": True,
    "privacy": "local",
    "speculate": "off",
}
GUIDED = {"model": "story", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4, "privacy": "local"}
TOOLED = {**GUIDED, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
FORMED = {**GUIDED, "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}}}
CHOSEN = {"model": "story", "prompt": "a", "guided_choice": ["yes", "no"]}
MATCHED = {"model": "story", "prompt": "a", "guided_regex": "[a-z]{1,5}(x|y)+", "top_k": 3, "min_p": 0.1}
ANTHROPIC = {
    "model": "tiny",
    "max_tokens": 4,
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "x"}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "warm"}]}],
        },
    ],
    "tools": [{"name": "weather", "description": "now", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "disabled"},
    "stop_sequences": ["b"],
}
OLLAMA = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "a", "images": []}],
    "options": {"num_predict": 4, "num_ctx": 99},
    "format": "json",
    "think": False,
    "keep_alive": "5m",
    "stream": False,
}
OLLAMA_TEXT = {
    "model": "tiny",
    "prompt": "a",
    "system": "b",
    "raw": False,
    "format": SCHEMA,
    "options": {"seed": 1, "stop": ["b"]},
}
RESPONSE = {
    "model": "tiny",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "warm"},
    ],
    "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
    "tool_choice": {"type": "function", "name": "weather"},
    "max_output_tokens": 4,
}
FORMED_RESPONSE = {
    "model": "tiny",
    "input": "a",
    "text": {"format": {"type": "json_object"}},
    "reasoning": {"effort": "low"},
}
VECTORS = {"model": "tiny", "input": ["a b", [1, 2]], "encoding_format": "base64", "pooling": "last"}
GENERATE = {
    "op": "generate",
    "id": 1,
    "request": "r",
    **{name: CHAT[name] for name in ("model", "messages", "max_tokens")},
    "privacy": "local",
}

Read = Callable[[Mapping[str, Any]], Asked]


def read_body(data: bytes, read: Read) -> None:
    """A body, up to the requests to the engine and the first mask of a grammar."""
    prepared = prepare(served().engine, read(parse_object(data)), "fuzz")
    guide = prepared.requests[0].guide
    if guide is not None:
        guide.fresh().mask(np.zeros(prepared.model.config.vocab_size, np.float32))


def read_response(body: Mapping[str, Any]) -> Asked:
    """Of /v1/responses: the chat that it stands for, after the one that it continues."""
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return read_chat(response_body.translate(body, before), None)


def read_ollama_text(body: Mapping[str, Any]) -> Asked:
    """Of /api/generate."""
    translated, is_chat = ollama.translate_generate(body)
    return (read_chat if is_chat else read_completion)(translated, None)


def read_schema(data: bytes) -> None:
    """A JSON schema, as far as the first mask of its grammar."""
    _guided(json_rule(parse_object(data)), "start: ")


def read_grammar(data: bytes) -> None:
    """A grammar in Lark or GBNF."""
    _guided(data.decode("utf-8", "replace"), "")


def _guided(expression: str, before: str) -> None:
    story = served().story
    guide = Guide(story.guide_tokens, lark_grammar(before + expression))
    guide.fresh().mask(np.zeros(story.config.vocab_size, np.float32))


def read_request(data: bytes) -> None:
    """The bytes of an HTTP request; the gateway's answer is never that of an error that nobody expected."""
    node = served()
    with node.connect() as connection:
        try:
            connection.sendall(data)
        except OSError:  # it hung up in the middle
            return
        answer = b""
        if select.select([connection], [], [], PATIENCE_S)[0]:
            with contextlib.suppress(ConnectionError):
                answer = connection.recv(65536)
    node.complaints.raise_them()
    if b'"internal"' in answer:
        raise RuntimeError(answer[-500:].decode("latin-1"))


def request_of(path: str, body: Mapping[str, Any], *lines: str) -> bytes:
    """The bytes of a POST."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Connection: close", *lines]
    return REQUEST.close([head, dict(body)])


def _requests() -> list[bytes]:
    return [
        request_of("/v1/chat/completions", CHAT, "X-Kekahyde-Privacy: local"),
        request_of("/v1/completions", {**TEXT, "stream": True, "stream_options": {"include_usage": True}}),
        request_of("/v1/embeddings", VECTORS, "Authorization: Bearer x"),
        request_of("/v1/responses", {"model": "tiny", "input": "a", "max_output_tokens": 4, "store": False}),
        request_of("/v1/messages", {**ANTHROPIC, "tools": []}, "x-api-key: x", "anthropic-version: 2023-06-01"),
        request_of("/v1/messages/count_tokens", ANTHROPIC),
        request_of("/api/chat", OLLAMA),
        request_of("/api/generate", {**OLLAMA_TEXT, "format": "", "stream": True}),
        request_of("/api/embed", {"model": "tiny", "input": "a"}),
        request_of("/api/show", {"model": "tiny"}),
        request_of("/control", {"op": "peers"}, "Origin: http://localhost:3000"),
        b"GET /v1/models/tiny?token=x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=0-1\r\n\r\n",
    ]


def _bodies(*bodies: Mapping[str, Any]) -> Callable[[], list[bytes]]:
    return lambda: [json.dumps(body).encode() for body in bodies]


def _body_target(name: str, reads: str, read: Read, *bodies: Mapping[str, Any]) -> Target:
    errors = (ApiError, KekahydeError)
    return Target(
        name, reads, functools.partial(read_body, read=read), errors, _bodies(*bodies), JSON, grows_bytes=128 << 20
    )


GRAMMARS = (
    b'start: "a" (number | list)*\nnumber: /[0-9]{1,3}/\nlist: "[" number ("," number)* "]"\n',
    b'root ::= "a" ([0-9]+ | list)*\nlist ::= "[" [a-z]? "]"\n',
)
REFUSED = (PromptError, ModelError)
TARGETS = (
    _body_target("openai-chat", "/v1/chat/completions", lambda body: read_chat(body, None), CHAT, TOOLED, FORMED),
    _body_target("openai-text", "/v1/completions", lambda body: read_completion(body, None), TEXT, CHOSEN, MATCHED),
    _body_target("responses", "/v1/responses", read_response, RESPONSE, FORMED_RESPONSE),
    _body_target("embeddings", "/v1/embeddings", lambda body: read_embedding(body, "local"), VECTORS),
    _body_target("anthropic", "/v1/messages", lambda body: read_chat(anthropic.translate(body), None), ANTHROPIC),
    _body_target("ollama-chat", "/api/chat", lambda body: read_chat(ollama.translate_chat(body), None), OLLAMA),
    _body_target("ollama-text", "/api/generate", read_ollama_text, OLLAMA_TEXT),
    _body_target("generate", "generate of /ws", read_generate, GENERATE),
    Target(
        "schema",
        "a JSON schema, as a grammar",
        read_schema,
        (*REFUSED, ApiError),
        _bodies(SCHEMA),
        JSON,
        grows_bytes=128 << 20,
    ),
    Target("grammar", "a grammar", read_grammar, REFUSED, lambda: list(GRAMMARS), grows_bytes=128 << 20),
    Target("http", "a request to the gateway", read_request, (), _requests, REQUEST, grows_bytes=64 << 20),
)
