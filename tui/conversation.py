"""Prompts and answers: what is known about each, and what is sent for the next one. No screen, no clock."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tui.snapshot import Fields, ModelFacts, clean

CHARACTERS_PER_TOKEN = 3.0
"""A conservative estimate, to find how much of a text fits into a model's context."""
MAX_HEADING = 60
READ_SHARE = 0.5
"""Most of a context that old text may take; the rest is for the answer."""


class AnswerStatus(Enum):
    """The state of an answer."""

    ASKED = "asked"
    QUEUED = "queued"
    READING = "reading"
    WRITING = "writing"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = frozenset({AnswerStatus.DONE, AnswerStatus.STOPPED, AnswerStatus.FAILED})


@dataclass(slots=True)
class Answer:
    """One answer; it gets the events of its generation."""

    request: str
    asked_at: float
    model: str = ""
    status: AnswerStatus = AnswerStatus.ASKED
    parts: list[str] = field(default_factory=list)
    mode: str = ""
    plan: str = ""
    position: int = 0
    prefill: tuple[int, int] = (0, 0)
    prompt_tokens: int = 0
    tokens: int = 0
    first_at: float | None = None
    last_at: float = 0.0
    notes: list[str] = field(default_factory=list)
    receipt: Mapping[str, Any] | None = None
    error: str = ""
    code: str = ""
    """The code of the error, for what can be done about it."""
    number: int = 0
    """Its place among the answers to one prompt."""

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self.parts) > 1:
            self.parts[:] = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def finish_reason(self) -> str:
        """The receipt's finish reason: stop, length or cancelled; empty before the receipt has come."""
        return Fields(self.receipt).text("finish_reason")

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token: from the receipt, else as measured here."""
        told = Fields(self.receipt).maybe_number("ttft_s") if self.receipt else None
        if told is not None:
            return told
        return None if self.first_at is None else self.first_at - self.asked_at

    @property
    def tokens_per_s(self) -> float:
        told = Fields(self.receipt).maybe_number("tokens_per_s") if self.receipt else None
        if told is not None:
            return told
        if self.first_at is None or self.last_at <= self.first_at:
            return 0.0
        return (self.tokens - 1) / (self.last_at - self.first_at)

    def stop(self) -> None:
        """The user pressed stop: the text stays as it is, even if more arrives."""
        if not self.ended:
            self.status = AnswerStatus.STOPPED

    def fail(self, message: str, code: str = "") -> None:
        if not self.ended:
            self.status, self.error, self.code = AnswerStatus.FAILED, clean(message), code

    def apply(self, event: Mapping[str, Any], now: float) -> None:
        """Take one event of the generation."""
        fields = Fields(event)
        match fields.text("event"):
            case "queued" if not self.ended:
                self.status, self.position = AnswerStatus.QUEUED, fields.count("position")
            case "started" if not self.ended:
                self._start(fields)
            case "prefill" if not self.ended:
                self.prefill = (fields.count("done"), fields.count("total"))
            case "token" if not self.ended:
                self._add(fields, now)
            case "note":
                self.notes.append(fields.text("text"))
            case "receipt":
                self._end(event.get("receipt"))
            case "error":
                self.fail(fields.text("message") or "the node gave no reason", fields.text("code"))
            case _:
                pass

    def _start(self, fields: Fields) -> None:
        self.status = AnswerStatus.READING
        self.mode, self.plan = fields.text("mode"), fields.text("plan")
        self.model = fields.text("model") or self.model
        self.prompt_tokens = fields.count("prompt_tokens")

    def _add(self, fields: Fields, now: float) -> None:
        if self.first_at is None:
            self.first_at = now
        self.status, self.last_at = AnswerStatus.WRITING, now
        self.tokens += 1
        self.parts.append(fields.text("text"))

    def _end(self, receipt: Any) -> None:
        self.receipt = receipt if isinstance(receipt, Mapping) else {}
        fields = Fields(self.receipt)
        self.mode = fields.text("mode") or self.mode
        if self.status not in ENDED:
            cancelled = fields.text("finish_reason") == "cancelled"
            self.status = AnswerStatus.STOPPED if cancelled else AnswerStatus.DONE


@dataclass(slots=True)
class Turn:
    """A prompt and its answer. An empty prompt asks a model that continues text to continue."""

    prompt: str
    answer: Answer
    """The answer that is shown, and that counts in the next prompt."""
    others: list[Answer] = field(default_factory=list)
    """Other answers to this prompt, in the order in which they came."""
    left_out: bool = False
    """Whether it is no longer sent, so that the rest fits into the model's context."""

    @property
    def answers(self) -> list[Answer]:
        """All answers in the order in which they came."""
        return sorted([*self.others, self.answer], key=lambda answer: answer.number)

    def add(self, answer: Answer) -> None:
        """A further answer is written; it is shown from now on."""
        answer.number = 1 + max(one.number for one in self.answers)
        self.others.append(self.answer)
        self.answer = answer

    def show(self, step: int) -> bool:
        """Show the answer before (-1) or after (1) the one that is shown; returns False if there is none."""
        answers = self.answers
        place = answers.index(self.answer) + step
        if not 0 <= place < len(answers):
            return False
        self.others = [one for one in answers if one is not answers[place]]
        self.answer = answers[place]
        return True

    @property
    def came_to_nothing(self) -> bool:
        """Whether it was refused, or failed before any text came."""
        return self.answer.status is AnswerStatus.FAILED and not self.answer.text


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent for a turn."""

    fields: dict[str, Any]
    note: str = ""
    """What the user should know about it; empty if the whole conversation is sent."""


class Conversation:
    """All turns since the conversation began, and what the user says about it."""

    def __init__(self, name: str = "") -> None:
        self.id = name or secrets.token_hex(8)
        self.title = ""
        """The name that the user gave it."""
        self.changed_at = 0.0
        """Unix seconds."""
        self.kept = False
        """Whether the user wants it on the disk."""
        self.turns: list[Turn] = []

    @property
    def heading(self) -> str:
        """Its name, or its first prompt."""
        first = next((turn.prompt for turn in self.turns if turn.prompt.strip()), "")
        return self.title or " ".join(first.split())[:MAX_HEADING] or "(no prompt yet)"

    def drop_oldest(self) -> int:
        """Send the older half of the turns no longer; returns how many turns that are."""
        sent = [turn for turn in self.turns[:-1] if not turn.left_out]
        for turn in sent[: (len(sent) + 1) // 2]:
            turn.left_out = True
        return (len(sent) + 1) // 2

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    def asked_of(self, model: ModelFacts | None, system: str = "") -> Asked:
        """What is sent for the newest turn: messages if the model can chat, else the text so far.

        The newest prompt is always sent whole: if it is too long, the node refuses it, as usual. Of the text before
        it only the end is sent that leaves room for the answer, and a note says so.

        Args:
            system: the system prompt of a chat; empty for none.
        """
        if model is not None and model.chat:
            first = [{"role": "system", "content": system}] if system else []
            return Asked({"messages": first + self._messages()})
        before, prompt = self._text()
        kept = before if model is None or model.context is None else _readable(before, model.context, len(prompt))
        unread = len(before) - len(kept)
        note = (
            f"the model reads at most {model.context} tokens: the first {unread} characters of this conversation are "
            "no longer sent; ctrl+n begins a new one"
            if unread and model is not None
            else ""
        )
        return Asked({"prompt": _joined(kept, prompt)}, note)

    def _messages(self) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = []
        for turn in self.turns:
            if turn.left_out or turn.came_to_nothing:
                continue
            messages.append({"role": "user", "content": turn.prompt or "Go on."})
            if turn.answer.text:
                messages.append({"role": "assistant", "content": turn.answer.text})
        return messages

    def _text(self) -> tuple[str, str]:
        """The text before the newest prompt, and the newest prompt. A prompt that came to nothing is not part of the
        text; if nothing was typed after it, it is the newest prompt again."""
        newest = max(0, len(self.turns) - 1)
        while newest and not self.turns[newest].prompt and self.turns[newest - 1].came_to_nothing:
            newest -= 1
        text = ""
        for turn in self.turns[:newest]:
            if not turn.came_to_nothing and not turn.left_out:
                text = _joined(text, turn.prompt) + turn.answer.text
        return text, self.turns[newest].prompt if self.turns else ""


def _joined(text: str, prompt: str) -> str:
    """The prompt appended to the text, with a space between if neither has one."""
    glued = not text or not prompt or text[-1].isspace() or prompt[0].isspace()
    return f"{text}{prompt}" if glued else f"{text} {prompt}"


def _readable(text: str, context: int, taken: int) -> str:
    """The end of a text that fits into this context together with `taken` characters and leaves room for an answer.
    It begins at a sentence or a word."""
    limit = max(64, int(context * READ_SHARE * CHARACTERS_PER_TOKEN)) - taken
    if len(text) <= limit:
        return text
    tail = text[-limit:] if limit > 0 else ""
    cut = tail.find(". ")
    if 0 <= cut < limit // 2:
        return tail[cut + 2 :]
    return tail.partition(" ")[2] or tail
