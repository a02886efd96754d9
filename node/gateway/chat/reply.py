"""Takes an answer's text apart as it grows: thoughts, text, and calls of tools."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from msgspec import Struct

from node.gateway.chat.dialect import LLAMA, THOUGHT_BEGINS, THOUGHT_ENDS, Dialect, Thinking
from protocol.discreet import Discreet


class Text(Discreet, Struct, frozen=True):
    """More text for the reader."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("text",)
    text: str


class Thought(Discreet, Struct, frozen=True):
    """More of what the model thinks before it answers."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("text",)
    text: str


class CallBegins(Discreet, Struct, frozen=True):
    """A call of a tool; its arguments follow."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("name",)
    index: int
    name: str


class CallArguments(Discreet, Struct, frozen=True):
    """More of the arguments of the last call, as JSON."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("text",)
    index: int
    text: str


Piece = Text | Thought | CallBegins | CallArguments
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_BETWEEN = re.compile(r"[\s,;\[\]]*")
_BEGINS_CALL = re.compile(r"\s*[\[{]")


class ReplyReader:
    """Reads one answer.

    Args:
        dialect: how calls are written; None if nothing is a call.
    """

    def __init__(self, dialect: Dialect | None, thinking: Thinking, parallel: bool = True) -> None:
        self._dialect, self._thinking, self._parallel = dialect, thinking, parallel
        self._held = ""
        self._step = self._thought if thinking.begun else self._beginning
        self._calls = 0
        self._is_between = True
        """Whether there was no text since the beginning, or the last call."""
        self._arguments: _JsonEnd | None = None

    @property
    def has_calls(self) -> bool:
        """Whether a tool was called."""
        return self._calls > 0

    def push(self, text: str) -> list[Piece]:
        """The pieces that more text makes certain."""
        self._held += text
        pieces: list[Piece] = []
        while True:
            step = self._step
            if not step(pieces) and step == self._step:
                return _joined(pieces)

    def finish(self) -> list[Piece]:
        """The rest, when the answer has ended."""
        pieces = self.push("")
        if self._step == self._thought:
            pieces.append(Thought(self._take(len(self._held))))
        elif self._step == self._call:
            rest = self._take(len(self._held))
            if rest.strip() and not self._whole_call(pieces, rest):
                pieces.append(Text(f"{self._call_marker}{rest}"))
        elif self._step in (self._text, self._beginning) and not (self.has_calls and not self._held.strip()):
            pieces.append(Text(self._take(len(self._held))))
        return _joined(pieces)

    # Each step takes what it can from the held text; it returns whether it, or the next step, may go on.

    def _beginning(self, pieces: list[Piece]) -> bool:
        """Whether the answer begins with a thought, or with a call that has no marker."""
        begun = self._held.lstrip()
        if self._thinking.possible and THOUGHT_BEGINS.startswith(begun[: len(THOUGHT_BEGINS)]):
            if len(begun) >= len(THOUGHT_BEGINS):
                self._held, self._step = begun[len(THOUGHT_BEGINS) :], self._thought
            return False
        if self._dialect is LLAMA:
            if not begun:
                return False
            if begun[0] == "{":
                self._step = self._call
                return True
        self._step = self._text
        return True

    def _thought(self, pieces: list[Piece]) -> bool:
        end = self._held.find(THOUGHT_ENDS)
        if end < 0:
            pieces.append(Thought(self._take(len(self._held) - _overlap(self._held, THOUGHT_ENDS))))
            return False
        pieces.append(Thought(self._take(end)))
        self._held = self._held[len(THOUGHT_ENDS) :]
        self._step = self._after_thought
        return True

    def _after_thought(self, pieces: list[Piece]) -> bool:
        self._held = self._held.lstrip()
        if not self._held:
            return False
        self._thinking, self._step = Thinking(), self._beginning
        return True

    def _text(self, pieces: list[Piece]) -> bool:
        marker = self._dialect.begins if self._dialect else ""
        start = self._held.find(marker) if marker else -1
        certain = self._held[: start if start >= 0 else len(self._held) - _overlap(self._held, marker)]
        if marker and self._is_between and not certain.strip():  # space around calls is no text
            certain = ""
        pieces.append(Text(certain))
        self._is_between = self._is_between and not certain
        if start < 0:
            self._take(len(certain))
            return False
        self._held = self._held[start + len(marker) :]
        self._step = self._call
        return True

    def _call(self, pieces: list[Piece]) -> bool:
        """The head of a call, or a call that is written in another order and is known only as a whole."""
        assert self._dialect is not None
        self._held = self._held[_end(_BETWEEN, self._held) :]
        ends = self._dialect.ends
        if ends and self._held.startswith(ends):
            self._held, self._step, self._is_between = self._held[len(ends) :], self._text, True
            return True
        head = _HEAD.match(self._held)
        if head is not None:
            self._begin(pieces, json.loads(head[1]))
            self._held = self._held[head.end() :]
            self._arguments, self._step = _JsonEnd(), self._in_arguments
            return True
        end = self._held.find(ends) if ends else -1
        if end >= 0 and not self._whole_call(pieces, self._held[:end]):
            pieces.append(Text(f"{self._call_marker}{self._take(end + len(ends))}"))
            self._step = self._text
        elif end >= 0:
            self._take(end)
        return end >= 0

    def _in_arguments(self, pieces: list[Piece]) -> bool:
        assert self._arguments is not None
        length = self._arguments.push(self._held)
        over = length is not None
        taken = self._take(len(self._held) if length is None else length)
        if self._kept_calls:
            pieces.append(CallArguments(self._calls - 1, taken))
        if over:
            self._step = self._tail
        return over

    def _tail(self, pieces: list[Piece]) -> bool:
        """The brace that closes a call."""
        self._held = self._held.lstrip()
        if not self._held:
            return False
        self._held, self._step = self._held.removeprefix("}"), self._call
        return True

    def _whole_call(self, pieces: list[Piece], body: str) -> bool:
        """A call that could not be streamed; returns whether it is one."""
        calls = _calls_in(body)
        for name, arguments in calls or ():
            self._begin(pieces, name)
            if self._kept_calls:
                pieces.append(CallArguments(self._calls - 1, arguments))
        return calls is not None

    def _begin(self, pieces: list[Piece], name: str) -> None:
        self._calls += 1
        if self._kept_calls:
            pieces.append(CallBegins(self._calls - 1, name))

    @property
    def _call_marker(self) -> str:
        """What was left out before a text that was no call; Llama's calls may begin without it."""
        return "" if self._dialect is None or self._dialect is LLAMA else self._dialect.begins

    @property
    def _kept_calls(self) -> bool:
        return self._parallel or self._calls == 1

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken


class _JsonEnd:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth, self._in_string, self._escaped = 0, False, False

    def push(self, text: str) -> int | None:
        """How many characters of `text` belong to it; None if all do and it goes on."""
        for index, character in enumerate(text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return index + 1
        return None


def _calls_in(body: str) -> list[tuple[str, str]] | None:
    """Names and arguments of the calls in a JSON text; None if it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    calls = [_as_call(call) for call in (value if isinstance(value, list) else [value])]
    return None if not calls or None in calls else [call for call in calls if call is not None]


def _as_call(value: Any) -> tuple[str, str] | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return (value["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Without the empty ones."""
    return [piece for piece in pieces if isinstance(piece, CallBegins) or piece.text]


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of a text with which a marker begins."""
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:n])), 0)


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0
