"""Anthropic's messages and their events, built from the pieces of an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from node.gateway.chat.answer import Answer
from node.gateway.chat.reply import CallArguments, CallBegins, Piece, Text, Thought
from node.gateway.http.errors import MESSAGES_PATH, ApiError
from node.gateway.openai.answers import receipt_object

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
"""An answer that could not be finished has our own word, `error`."""


class MessageForm:
    """Builds one message, whole or as events."""

    def __init__(self, message_id: str, model: str, input_tokens: int, note: str | None = None) -> None:
        self._base = {"id": message_id, "type": "message", "role": "assistant", "model": model}
        self._input_tokens = input_tokens
        self._note = note
        self._index = -1
        self._open: type[Piece] | None = None
        """The kind of the block that is open."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The message in one piece."""
        assert answer.receipt is not None
        content: list[dict[str, Any]] = []
        if answer.thought:
            content.append({"type": "thinking", "thinking": answer.thought, "signature": ""})
        if answer.text or not answer.calls:
            content.append({"type": "text", "text": answer.text})
        for call in answer.calls:
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)})
        return {
            **self._base,
            "content": content,
            "stop_reason": _reason(answer),
            "stop_sequence": None,
            "usage": self._usage(answer.receipt.cached_tokens, answer.receipt.tokens),
            "kekahyde": receipt_object(answer.receipt, self._note),
        }

    def opening(self) -> list[dict[str, Any]]:
        """Events before the first token."""
        empty: dict[str, Any] = {
            **self._base,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(0, 0),
        }
        return [{"type": "message_start", "message": empty}, {"type": "ping"}]

    def pieces(self, answer: Answer, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
        """Events with more of the answer: a block of content for each thought, text and call."""
        for piece in pieces:
            kind = CallBegins if isinstance(piece, CallArguments) else type(piece)
            if kind is not self._open or isinstance(piece, CallBegins):
                yield from self._close_block()
                self._index += 1
                self._open = kind
                yield {"type": "content_block_start", "index": self._index, "content_block": _block(answer, piece)}
            delta = _delta(piece)
            if delta is not None:
                yield {"type": "content_block_delta", "index": self._index, "delta": delta}

    def closing(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """The last events."""
        assert answer.receipt is not None
        yield from self._close_block()
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": _reason(answer), "stop_sequence": None},
            "usage": self._usage(answer.receipt.cached_tokens, answer.receipt.tokens),
            "kekahyde": receipt_object(answer.receipt, self._note),
        }
        yield {"type": "message_stop"}

    def failure(self, error: ApiError) -> list[dict[str, Any]]:
        """The last event of an answer that failed."""
        return [error.as_json(MESSAGES_PATH)]

    def _close_block(self) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}

    def _usage(self, cached: int, output: int) -> dict[str, int]:
        """Anthropic counts tokens that a cache had apart from the others."""
        return {
            "input_tokens": self._input_tokens - cached,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": output,
        }


def _reason(answer: Answer) -> str:
    return REASONS.get(answer.finish_reason, answer.finish_reason)


def _block(answer: Answer, piece: Piece) -> dict[str, Any]:
    match piece:
        case Text():
            return {"type": "text", "text": ""}
        case Thought():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case CallBegins(index=index, name=name):
            return {"type": "tool_use", "id": answer.calls[index].id, "name": name, "input": {}}
        case CallArguments():
            raise AssertionError("arguments come after the beginning of their call")


def _delta(piece: Piece) -> dict[str, Any] | None:
    match piece:
        case Text(text):
            return {"type": "text_delta", "text": text}
        case Thought(text):
            return {"type": "thinking_delta", "thinking": text}
        case CallArguments(text=text):
            return {"type": "input_json_delta", "partial_json": text}
        case CallBegins():
            return None


def _input(arguments: str) -> Any:
    """The arguments as an object; those of a call that was cut off are not complete."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}
