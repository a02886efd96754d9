"""The objects and events of /v1/responses, built from the pieces of an answer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from node.gateway.chat.answer import Answer
from node.gateway.chat.reply import CallArguments, CallBegins, Piece, Text, Thought
from node.gateway.http.errors import ApiError
from node.gateway.openai.answers import receipt_object, usage_of

ECHOED = ("instructions", "max_output_tokens", "metadata", "previous_response_id", "temperature", "top_p", "user")
"""Fields of the request that the response repeats."""


class ResponseForm:
    """Builds one response, whole or as events."""

    def __init__(
        self, response_id: str, created: int, model: str, body: Mapping[str, Any], note: str | None = None
    ) -> None:
        self._note = note
        self._base: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": created,
            "model": model,
            **{name: body.get(name) for name in ECHOED},
            "metadata": body.get("metadata") or {},
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "text": body.get("text") or {"format": {"type": "text"}},
            "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
            "store": body.get("store") is not False,
            "truncation": "disabled",
        }
        self._sequence = 0
        self._items: list[dict[str, Any]] = []
        """The items of the output so far; the last one is open while a stream runs."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The complete response."""
        for piece in _pieces_of(answer):
            self._add(answer, piece)
        return self._finished(answer)

    def opening(self) -> list[dict[str, Any]]:
        """Events before the first token."""
        begun = self._response("in_progress")
        return [self._event("response.created", response=begun), self._event("response.in_progress", response=begun)]

    def pieces(self, answer: Answer, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
        """Events with more of the answer."""
        for piece in pieces:
            is_new = not self._items or _kind(piece) != self._items[-1]["type"] or isinstance(piece, CallBegins)
            if is_new:
                yield from self._close_item()
            item = self._add(answer, piece)
            place = {"item_id": item["id"], "output_index": len(self._items) - 1}
            if is_new:
                empty = {**item, "arguments": ""} if item["type"] == "function_call" else {**item, "content": []}
                yield self._event("response.output_item.added", output_index=place["output_index"], item=empty)
                if item["type"] != "function_call":
                    part = {**item["content"][0], "text": ""}
                    yield self._event("response.content_part.added", **place, content_index=0, part=part)
            match piece:
                case Text(text):
                    yield self._event("response.output_text.delta", **place, content_index=0, delta=text, logprobs=[])
                case Thought(text):
                    yield self._event("response.reasoning_text.delta", **place, content_index=0, delta=text)
                case CallArguments(text=text):
                    yield self._event("response.function_call_arguments.delta", **place, delta=text)
                case CallBegins():
                    pass

    def closing(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """The last events."""
        yield from self._close_item()
        finished = self._finished(answer)
        yield self._event(f"response.{finished['status']}", response=finished)

    def failure(self, error: ApiError) -> list[dict[str, Any]]:
        """The last event of a response that failed."""
        said = {"code": error.code or "server_error", "message": str(error)}
        return [self._event("response.failed", response={**self._response("failed"), "error": said})]

    def _add(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        """Put a piece into the output; returns its item."""
        kind = _kind(piece)
        if not self._items or self._items[-1]["type"] != kind or isinstance(piece, CallBegins):
            self._items.append(_item(answer, piece))
        item = self._items[-1]
        match piece:
            case Text(text) | Thought(text):
                item["content"][0]["text"] += text
            case CallArguments(text=text):
                item["arguments"] += text
            case CallBegins():
                pass
        return item

    def _close_item(self) -> Iterator[dict[str, Any]]:
        if not self._items:
            return
        item = self._items[-1]
        item["status"] = "completed"
        place = {"item_id": item["id"], "output_index": len(self._items) - 1}
        if item["type"] == "function_call":
            yield self._event(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
            )
        else:
            part = item["content"][0]
            kind = "output_text" if item["type"] == "message" else "reasoning_text"
            more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
            yield self._event(f"response.{kind}.done", **place, content_index=0, text=part["text"], **more)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)

    def _finished(self, answer: Answer) -> dict[str, Any]:
        assert answer.receipt is not None
        for item in self._items:
            item["status"] = "completed"
        usage = usage_of([answer.receipt])
        return {
            **self._response("completed" if answer.finish_reason in ("stop", "tool_calls") else "incomplete"),
            "incomplete_details": _why_incomplete(answer),
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
            "kekahyde": receipt_object(answer.receipt, self._note),
        }

    def _response(self, status: str) -> dict[str, Any]:
        return {**self._base, "status": status, "output": self._items, "error": None, "incomplete_details": None}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}


def _pieces_of(answer: Answer) -> Iterator[Piece]:
    if answer.thought:
        yield Thought(answer.thought)
    if answer.text or not answer.calls:
        yield Text(answer.text)
    for index, call in enumerate(answer.calls):
        yield CallBegins(index, call.name)
        yield CallArguments(index, call.arguments)


def _kind(piece: Piece) -> str:
    match piece:
        case Text():
            return "message"
        case Thought():
            return "reasoning"
        case CallBegins() | CallArguments():
            return "function_call"


def _item(answer: Answer, piece: Piece) -> dict[str, Any]:
    name = secrets.token_hex(12)
    match piece:
        case Text():
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            message = {"id": f"msg_{name}", "type": "message", "role": "assistant", "status": "in_progress"}
            return {**message, "content": [part]}
        case Thought():
            part = {"type": "reasoning_text", "text": ""}
            return {
                "id": f"rs_{name}",
                "type": "reasoning",
                "summary": [],
                "status": "in_progress",
                "content": [part],
            }
        case CallBegins(index=index) | CallArguments(index=index):
            call = answer.calls[index]
            said = {"call_id": call.id, "name": call.name, "arguments": "", "status": "in_progress"}
            return {"id": f"fc_{name}", "type": "function_call", **said}


def _why_incomplete(answer: Answer) -> dict[str, str] | None:
    if answer.finish_reason == "length":
        return {"reason": "max_output_tokens"}
    return None if answer.finish_reason in ("stop", "tool_calls") else {"reason": answer.finish_reason}
