"""OpenAI's objects, built from the engine's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from node.engine.models import ListedModel
from node.engine.request import Token
from node.gateway.chat.answer import Answer
from node.gateway.chat.reply import CallArguments, CallBegins, Piece, Text, Thought
from node.model.tokenizer import Tokenizer
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


def receipt_object(receipt: Receipt, note: str | None = None) -> dict[str, Any]:
    """The receipt of an answer, without the text, which the answer already has."""
    said = {name: value for name, value in receipt.as_json().items() if name not in ("type", "text")}
    if note:
        said["note"] = "; ".join(filter(None, [said.get("note"), note]))
    return said


def usage_of(receipts: Sequence[Receipt], num_prompts: int = 1) -> dict[str, Any]:
    """Token counts of prompts and answers; a prompt counts once, however many answers it has."""
    prompt = sum(receipt.prompt_tokens for receipt in receipts[:: max(1, len(receipts) // num_prompts)])
    answers = sum(receipt.tokens for receipt in receipts)
    cached = sum(receipt.cached_tokens for receipt in receipts[:: max(1, len(receipts) // num_prompts)])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answers,
        "total_tokens": prompt + answers,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class AnswerForm:
    """Builds the objects of one response, of a chat or of a completion, with id, time and model."""

    def __init__(
        self,
        answer_id: str,
        created: int,
        model: str,
        tokenizer: Tokenizer,
        chat: bool,
        include_usage: bool = False,
        num_prompts: int = 1,
        note: str | None = None,
    ) -> None:
        self._base = {"id": answer_id, "created": created, "model": model, "system_fingerprint": FINGERPRINT}
        self._tokenizer = tokenizer
        self._chat = chat
        self._include_usage = include_usage
        self._num_prompts = num_prompts
        self._note = note
        self._offsets: dict[int, int] = {}

    def whole(self, answers: Sequence[Answer], computed: Sequence[Answer]) -> dict[str, Any]:
        """The response in one piece.

        Args:
            answers: those that are given, in their order.
            computed: all of them, for the usage.
        """
        receipts = [answer.receipt for answer in computed if answer.receipt is not None]
        shown = [receipt_object(answer.receipt, self._note) for answer in answers if answer.receipt is not None]
        return {
            **self._base,
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": [self._choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage_of(receipts, self._num_prompts),
            "kekahyde": shown[0] if len(shown) == 1 else {"answers": shown},
        }

    def opening(self, index: int) -> list[dict[str, Any]]:
        """Chunks of an answer before its first token: a chat begins with the role."""
        return [self._chunk(index, {"delta": {"role": "assistant", "content": ""}})] if self._chat else []

    def pieces(self, answer: Answer, pieces: Sequence[Piece], tokens: Sequence[Token]) -> list[dict[str, Any]]:
        """Chunks with more of an answer; the likelihoods of `tokens` go with the first one."""
        chunks = [self._chunk(answer.index, self._delta(answer, piece)) for piece in pieces]
        if tokens:
            chunks = chunks or [self._chunk(answer.index, {"delta": {}} if self._chat else {"text": ""})]
            chunks[0]["choices"][0]["logprobs"] = self._logprobs(answer.index, tokens)
        return chunks

    def closing(self, answer: Answer) -> list[dict[str, Any]]:
        """The last chunk of an answer, with the receipt."""
        assert answer.receipt is not None
        empty: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        chunk = self._chunk(answer.index, empty, answer.finish_reason)
        return [{**chunk, "kekahyde": receipt_object(answer.receipt, self._note)}]

    def usage(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """The last chunk of all, if it was asked for."""
        if not self._include_usage:
            return []
        receipts = [answer.receipt for answer in answers if answer.receipt is not None]
        return [{**self._chunk(0, None), "usage": usage_of(receipts, self._num_prompts)}]

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        content: dict[str, Any] = {"message": _message(answer)} if self._chat else {"text": answer.text}
        logprobs = self._logprobs(index, answer.tokens) if answer.tokens else None
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": answer.finish_reason}

    def _delta(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        if not self._chat:
            return {"text": piece.text if isinstance(piece, Text | Thought) else ""}
        match piece:
            case Text(text):
                return {"delta": {"content": text}}
            case Thought(text):
                return {"delta": {"reasoning_content": text}}
            case CallBegins(index, name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": answer.calls[index].id, "type": "function", "function": function}
                return {"delta": {"tool_calls": [call]}}
            case CallArguments(index, text):
                return {"delta": {"tool_calls": [{"index": index, "function": {"arguments": text}}]}}

    def _chunk(self, index: int, content: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
        choices = [] if content is None else [{"index": index, **content, "logprobs": None, "finish_reason": reason}]
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        usage: dict[str, Any] = {"usage": None} if self._include_usage else {}
        return {**self._base, "object": kind, "choices": choices, **usage}

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> dict[str, Any]:
        """The likelihoods in the form of a chat, or in the older one of a completion."""
        known = [(token.id, token.likelihood) for token in tokens if token.likelihood is not None]
        if self._chat:
            content = [
                {**self._said(token_id, one.logprob), "top_logprobs": [self._said(*other) for other in one.top]}
                for token_id, one in known
            ]
            return {"content": content, "refusal": None}
        words = [self._tokenizer.piece(token_id).decode(errors="replace") for token_id, _ in known]
        offsets, offset = [], self._offsets.get(index, 0)
        for word in words:
            offsets.append(offset)
            offset += len(word)
        self._offsets[index] = offset
        tops = [{self._tokenizer.piece(i).decode(errors="replace"): p for i, p in one.top} for _, one in known]
        return {
            "tokens": words,
            "token_logprobs": [one.logprob for _, one in known],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _said(self, token_id: int, logprob: float) -> dict[str, Any]:
        piece = self._tokenizer.piece(token_id)
        return {"token": piece.decode(errors="replace"), "bytes": list(piece), "logprob": logprob}


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.thought:
        message["reasoning_content"] = answer.thought
    if answer.calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return message
