"""Conversations beyond the one on the screen: all of this session, those that the node remembers, those kept on disk.

<data dir>/conversations/ID.json, mode 0600, for conversations that the user keeps; nothing of the others is written.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tui.conversation import Answer, AnswerStatus, Conversation, Turn
from tui.private_file import remove_private, write_private
from tui.snapshot import Fields

logger = logging.getLogger(__name__)

FOLDER = "conversations"
MAX_FILE_BYTES = 16 << 20
MAX_KEPT = 1000
ENDINGS = {AnswerStatus.STOPPED.value: AnswerStatus.STOPPED, AnswerStatus.FAILED.value: AnswerStatus.FAILED}


class Archive:
    """All known conversations by id, and the folder of the kept ones."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._all: dict[str, Conversation] = {}
        self._unread = True

    def all(self) -> list[Conversation]:
        """Every conversation with a turn, the newest first."""
        self._read()
        return sorted((one for one in self._all.values() if one.turns), key=lambda one: -one.changed_at)

    def matching(self, words: str) -> list[Conversation]:
        """Those whose heading or text holds every one of these words."""
        wanted = words.casefold().split()
        return [one for one in self.all() if all(word in _searched(one) for word in wanted)]

    def note(self, conversation: Conversation, now_unix_s: float) -> None:
        """The conversation has changed: if it is kept, write it."""
        conversation.changed_at = now_unix_s
        self._all[conversation.id] = conversation
        if conversation.kept:
            self.keep(conversation)

    def take(self, texts: Iterable[str]) -> None:
        """Conversations that the node remembers; those that are known here count."""
        for text in texts:
            conversation = read_conversation(text)
            if conversation is not None:
                conversation.kept = self._path(conversation).exists()  # only the disk says what is on the disk
                self._all.setdefault(conversation.id, conversation)

    def keep(self, conversation: Conversation) -> None:
        """Write it to the disk, now and at every change. Raises OSError."""
        conversation.kept = True
        self._all[conversation.id] = conversation
        write_private(self._path(conversation), written(conversation))

    def keep_no_more(self, conversation: Conversation) -> None:
        """Remove it from the disk; it stays in memory. Raises OSError."""
        remove_private(self._path(conversation))
        conversation.kept = False

    def delete(self, conversation: Conversation) -> None:
        """Forget it, on the disk too. Raises OSError."""
        self.keep_no_more(conversation)
        self._all.pop(conversation.id, None)

    def _path(self, conversation: Conversation) -> Path:
        return self._folder / f"{conversation.id}.json"

    def _read(self) -> None:
        """Read the kept conversations, once."""
        if not self._unread:
            return
        self._unread = False
        for path in sorted(self._folder.glob("*.json"))[:MAX_KEPT] if self._folder.is_dir() else []:
            try:
                with path.open("rb") as file:
                    content = file.read(MAX_FILE_BYTES + 1)
            except OSError as exc:
                logger.warning("%s cannot be read: %s", path, exc.strerror)
                continue
            conversation = (
                None if len(content) > MAX_FILE_BYTES else read_conversation(content.decode(errors="replace"))
            )
            if conversation is None or conversation.id != path.stem:
                logger.warning("%s is not a conversation: it is left alone", path)
                continue
            conversation.kept = True
            self._all.setdefault(conversation.id, conversation)


def written(conversation: Conversation) -> str:
    """A conversation as JSON."""
    turns = [
        {"prompt": turn.prompt, "left_out": turn.left_out, "answers": [_answer(turn, one) for one in turn.answers]}
        for turn in conversation.turns
    ]
    facts = {"id": conversation.id, "title": conversation.title, "changed_at": conversation.changed_at}
    return json.dumps({**facts, "turns": turns}, ensure_ascii=False)


def read_conversation(text: str) -> Conversation | None:
    """A conversation from JSON; None if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fields = Fields(value)
    name = fields.text("id")
    if not name.isalnum() or not name.isascii() or len(name) > 64:
        return None
    conversation = Conversation(name)
    conversation.title, conversation.changed_at = fields.text("title"), fields.number("changed_at")
    conversation.turns = [turn for item in fields.objects("turns") if (turn := _turn(item)) is not None]
    return conversation


def markdown(conversation: Conversation) -> str:
    """A conversation as a Markdown document."""
    parts = [f"# {conversation.heading}", time.strftime("%Y-%m-%d %H:%M", time.localtime(conversation.changed_at))]
    for turn in conversation.turns:
        if turn.prompt:
            parts.append("\n".join(f"> {line}" for line in turn.prompt.splitlines()))
        if turn.answer.text:
            parts.append(turn.answer.text.strip())
        made = " · ".join(part for part in (turn.answer.model, turn.answer.mode) if part)
        parts.append(f"*{made}*" if made else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer(turn: Turn, answer: Answer) -> dict[str, Any]:
    receipt = None if answer.receipt is None else {key: its for key, its in answer.receipt.items() if key != "text"}
    return {
        "text": answer.text,
        "model": answer.model,
        "mode": answer.mode,
        "plan": answer.plan,
        "status": answer.status.value,
        "tokens": answer.tokens,
        "error": answer.error,
        "receipt": receipt,
        "shown": answer is turn.answer,
    }


def _turn(fields: Fields) -> Turn | None:
    found = fields.objects("answers")
    answers = [_read_answer(item, number) for number, item in enumerate(found)]
    if not answers:
        return None
    shown = next((number for number, item in enumerate(found) if item.flag("shown")), len(answers) - 1)
    others = [one for number, one in enumerate(answers) if number != shown]
    return Turn(fields.text("prompt"), answers[shown], others, fields.flag("left_out"))


def _read_answer(fields: Fields, number: int) -> Answer:
    receipt = fields.mapping("receipt")
    answer = Answer(f"old-{os.urandom(6).hex()}", 0.0, fields.text("model"), number=number)
    answer.status = ENDINGS.get(fields.text("status"), AnswerStatus.DONE)
    answer.mode, answer.plan = fields.text("mode"), fields.text("plan")
    answer.tokens, answer.error = fields.count("tokens"), fields.text("error")
    answer.parts = [fields.text("text")]
    answer.receipt = receipt if isinstance(receipt, Mapping) and receipt else None
    return answer


def _searched(conversation: Conversation) -> str:
    texts = [conversation.heading, *(f"{turn.prompt}\n{turn.answer.text}" for turn in conversation.turns)]
    return "\n".join(texts).casefold()
