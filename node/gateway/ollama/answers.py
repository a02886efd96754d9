"""The lines of Ollama's answers, built from the pieces of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from node.gateway.chat.answer import Answer
from node.gateway.chat.reply import CallArguments, CallBegins, Piece, Text, Thought
from node.gateway.http.errors import ApiError
from node.gateway.openai.answers import receipt_object
from node.session.receipt import Receipt

NANOSECONDS = 1_000_000_000


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class LineForm:
    """Builds the lines of one answer, of /api/chat or /api/generate.

    A call of a tool is sent when it is complete, because Ollama's are objects.
    """

    def __init__(self, model: str, chat: bool, note: str | None = None) -> None:
        self._model = model
        self._chat = chat
        self._note = note
        self._sent_calls = 0

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: a stream begins with its first text."""
        return []

    def pieces(self, answer: Answer, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Lines with more of the answer."""
        lines = []
        for piece in pieces:
            match piece:
                case Text(text):
                    lines.append(self._line({"content": text}))
                case Thought(text):
                    lines.append(self._line({"content": "", "thinking": text}))
                case CallBegins() | CallArguments():
                    pass
        return lines + self._calls(answer, len(answer.calls) - 1)

    def closing(self, answer: Answer) -> list[dict[str, Any]]:
        """The last call, and the last line, with the counts."""
        assert answer.receipt is not None
        end = {**self._line({"content": ""}), **self._end(answer, answer.receipt)}
        return [*self._calls(answer, len(answer.calls)), end]

    def failure(self, error: ApiError) -> list[dict[str, Any]]:
        """The last line of an answer that failed."""
        return [{"error": str(error)}]

    def _calls(self, answer: Answer, complete: int) -> list[dict[str, Any]]:
        """Lines for the calls that are complete and were not sent yet."""
        due, self._sent_calls = range(self._sent_calls, complete), max(self._sent_calls, complete)
        return [self._line({"content": "", "tool_calls": [_call(answer, index)]}) for index in due]

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer in one line."""
        assert answer.receipt is not None
        message: dict[str, Any] = {"content": answer.text}
        if answer.thought:
            message["thinking"] = answer.thought
        if answer.calls:
            message["tool_calls"] = [_call(answer, index) for index in range(len(answer.calls))]
        return {**self._line(message), **self._end(answer, answer.receipt)}

    def _line(self, message: dict[str, Any]) -> dict[str, Any]:
        base = {"model": self._model, "created_at": now(), "done": False}
        if self._chat:
            return {**base, "message": {"role": "assistant", **message}}
        rest = {name: value for name, value in message.items() if name != "content"}
        return {**base, "response": message["content"], **rest}

    def _end(self, answer: Answer, receipt: Receipt) -> dict[str, Any]:
        answer_s = max(0, receipt.tokens - 1) / receipt.tokens_per_s if receipt.tokens_per_s else 0.0
        return {
            "done": True,
            "done_reason": "stop" if answer.finish_reason == "tool_calls" else answer.finish_reason,
            "total_duration": round((receipt.ttft_s + answer_s) * NANOSECONDS),
            "load_duration": 0,
            "prompt_eval_count": receipt.prompt_tokens,
            "prompt_eval_duration": round(receipt.ttft_s * NANOSECONDS),
            "eval_count": receipt.tokens,
            "eval_duration": round(answer_s * NANOSECONDS),
            "kekahyde": receipt_object(receipt, self._note),
        }


def _call(answer: Answer, index: int) -> dict[str, Any]:
    call = answer.calls[index]
    try:
        arguments = json.loads(call.arguments)
    except ValueError:  # cut off
        arguments = {}
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}
