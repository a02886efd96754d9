"""One answer to a program as it grows: its pieces, its likelihoods, how it ended."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence

from node.engine.request import Completed, Embedded, Event, Failed, Token
from node.gateway.chat.dialect import MISTRAL
from node.gateway.chat.prepare import Prepared
from node.gateway.chat.reply import CallArguments, CallBegins, Piece, ReplyReader, Text, Thought
from node.gateway.http.errors import ApiError
from node.session.receipt import Receipt

MISTRAL_ID_CHARACTERS = 9
"""Mistral's templates refuse other ids."""


class Call:
    """A call of a tool."""

    def __init__(self, name: str, call_id: str) -> None:
        self.name, self.id = name, call_id
        self.arguments = ""
        """JSON, as far as it is known."""


class Answer:
    """Reads the events of one generation; what it has read so far stays here for answers that are sent whole."""

    def __init__(self, prepared: Prepared, index: int) -> None:
        self.index = index
        self.text = self.thought = ""
        self.calls: list[Call] = []
        self.tokens: list[Token] = []
        """Those with a likelihood, if likelihoods were asked for; the end of the text is none of them."""
        self.vector: tuple[float, ...] = ()
        """The vector of the prompt, if that was asked for."""
        self.receipt: Receipt | None = None
        self._reader = ReplyReader(prepared.dialect, prepared.thinking, prepared.parallel)
        self._is_mistral = prepared.dialect is MISTRAL
        self._words = prepared.model.tokenizer().special_words
        self._echo: str = prepared.echoes[index] if prepared.echoes else ""

    def read(self, event: Event) -> list[Piece]:
        """The pieces that an event makes certain. Raises ApiError if the generation failed."""
        match event:
            case Token(id=token_id, text=text, likelihood=likelihood):
                if likelihood is not None and token_id not in self._words:
                    self.tokens.append(event)
                return self._kept(self._reader.push(text))
            case Embedded(vector):
                self.vector = vector
                return []
            case Completed(receipt):
                self.receipt = receipt
                return self._kept(self._reader.finish())
            case Failed(message, code):
                raise ApiError(500, message, code)
            case _:
                return []

    @property
    def finish_reason(self) -> str:
        """OpenAI has stop, length and tool_calls; a cancelled answer counts as stop. An answer that could not be
        finished has our own word, because none of theirs would be true."""
        assert self.receipt is not None
        reason = self.receipt.finish_reason
        if reason == "cancelled":
            return "stop"
        return "tool_calls" if self.calls and reason == "stop" else reason

    @property
    def mean_logprob(self) -> float:
        """By which the best of several answers is chosen."""
        known = [token.likelihood.logprob for token in self.tokens if token.likelihood is not None]
        return sum(known) / len(known) if known else float("-inf")

    def opening(self) -> list[Piece]:
        """The pieces before the first token."""
        return self._kept([Text(self._echo)]) if self._echo else []

    def _kept(self, pieces: Sequence[Piece]) -> list[Piece]:
        for piece in pieces:
            match piece:
                case Text(text):
                    self.text += text
                case Thought(text):
                    self.thought += text
                case CallBegins(name=name):
                    self.calls.append(Call(name, self._call_id()))
                case CallArguments(text=text):
                    self.calls[-1].arguments += text
        return list(pieces)

    def _call_id(self) -> str:
        if self._is_mistral:
            letters = string.ascii_letters + string.digits
            return "".join(secrets.choice(letters) for _ in range(MISTRAL_ID_CHARACTERS))
        return f"call_{secrets.token_hex(12)}"
