"""OpenAI's objects, built from the engine's results."""

from __future__ import annotations

from typing import Any

from node.engine.models import ListedModel
from node.session.receipt import Receipt
from node.version import VERSION

FINGERPRINT = f"kekahyde-{VERSION}"
CREATED = 0
"""Models have no date here."""


def model_object(listed: ListedModel) -> dict[str, Any]:
    """One entry of /v1/models."""
    summary = listed.summary
    return {
        "id": listed.name,
        "object": "model",
        "created": CREATED,
        "owned_by": "kekahyde",
        "kekahyde": {
            "model_id": summary.model_id,
            "type": summary.model_type,
            "layers": summary.num_layers,
            "context_length": summary.context_length,
            "weights": summary.num_weights,
        },
    }


def receipt_object(receipt: Receipt) -> dict[str, Any]:
    """The receipt of an answer, without the text, which the answer already has."""
    return {name: value for name, value in receipt.as_json().items() if name not in ("type", "text")}


def usage_of(receipt: Receipt) -> dict[str, Any]:
    """Token counts of prompt and answer."""
    return {
        "prompt_tokens": receipt.prompt_tokens,
        "completion_tokens": receipt.tokens,
        "total_tokens": receipt.prompt_tokens + receipt.tokens,
    }


class AnswerForm:
    """Builds the objects of one answer, of a chat or of a completion, with id, time and model."""

    def __init__(self, answer_id: str, created: int, model: str, chat: bool, include_usage: bool = False) -> None:
        self._base = {"id": answer_id, "created": created, "model": model, "system_fingerprint": FINGERPRINT}
        self._chat = chat
        self._include_usage = include_usage

    def whole(self, receipt: Receipt) -> dict[str, Any]:
        """The answer in one piece."""
        text, reason = receipt.text, _reason(receipt)
        message = (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self._chat else {"text": text}
        )
        return {
            **self._base,
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": [{"index": 0, **message, "logprobs": None, "finish_reason": reason}],
            "usage": usage_of(receipt),
            "kekahyde": receipt_object(receipt),
        }

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first token: a chat begins with the role."""
        return [self._chunk({"delta": {"role": "assistant", "content": ""}})] if self._chat else []

    def text(self, text: str) -> dict[str, Any]:
        """A chunk with more text."""
        return self._chunk({"delta": {"content": text}} if self._chat else {"text": text})

    def closing(self, receipt: Receipt) -> list[dict[str, Any]]:
        """The last chunk, with the receipt; then the usage if it was asked for."""
        empty: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        chunks = [{**self._chunk(empty, _reason(receipt)), "kekahyde": receipt_object(receipt)}]
        if self._include_usage:
            chunks.append({**self._chunk(None), "usage": usage_of(receipt)})
        return chunks

    def _chunk(self, content: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
        choices = [] if content is None else [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        usage: dict[str, Any] = {"usage": None} if self._include_usage else {}
        return {**self._base, "object": kind, "choices": choices, **usage}


def _reason(receipt: Receipt) -> str:
    """The finish reason. OpenAI has stop and length; a cancelled answer counts as stop. An answer that could not be
    finished has our own word, because neither of theirs would be true."""
    return "stop" if receipt.finish_reason == "cancelled" else receipt.finish_reason
