"""Cuts a stream of Markdown into segments, so that an answer of any length stays quick to draw.

Each segment is drawn by its own Markdown widget; only the last one grows. If possible, a cut is made before a line
that follows a blank one. If necessary, it is made inside a code block, which is closed and opened again.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

SOFT_LINES = 14
"""After so many lines a blank line ends a segment."""
HARD_LINES = 40
"""After so many lines a segment ends at the next line, whatever it is."""
HARD_CHARACTERS = 6000
"""After so many characters a segment ends at the next space, for text without line ends."""

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")


@dataclass(frozen=True, slots=True)
class Write:
    """Text that belongs to the open segment."""

    text: str


@dataclass(frozen=True, slots=True)
class Roll:
    """The open segment is complete; text that follows belongs to the next."""


Cut = Write | Roll


class Segmenter:
    """Gets text as it comes and says what to write where."""

    def __init__(self) -> None:
        self._line = ""
        self._lines = 0
        self._characters = 0
        self._fence = ""
        self._fence_info = ""
        self._blank_before = False

    def feed(self, text: str) -> list[Cut]:
        """What to do with the next piece of the stream."""
        cuts: list[Cut] = []
        for part in text.splitlines(keepends=True):
            if not self._line and self._may_end(part):
                self._roll(cuts)
            self._put(cuts, part)
            if part.endswith("\n"):
                self._end_line()
            elif self._characters >= HARD_CHARACTERS and " " in part and not self._fence:
                self._roll(cuts)
        return cuts

    def _may_end(self, next_text: str) -> bool:
        if self._lines >= HARD_LINES:
            return True
        follows_blank = self._blank_before and not self._fence and next_text[:1] not in (" ", "\t", "\n")
        return self._lines >= SOFT_LINES and follows_blank

    def _put(self, cuts: list[Cut], text: str) -> None:
        self._line += text
        self._characters += len(text)
        if cuts and isinstance(cuts[-1], Write):
            cuts[-1] = Write(cuts[-1].text + text)
        else:
            cuts.append(Write(text))

    def _end_line(self) -> None:
        line, self._line = self._line.rstrip("\n"), ""
        self._lines += 1
        self._blank_before = not line.strip()
        fence = _FENCE.match(line)
        if fence is None:
            return
        if not self._fence:
            self._fence, self._fence_info = fence[1], fence[2]
        elif fence[1][0] == self._fence[0] and len(fence[1]) >= len(self._fence) and not fence[2].strip():
            self._fence = ""

    def _roll(self, cuts: list[Cut]) -> None:
        if self._fence:
            self._put(cuts, f"{self._fence}\n")
        cuts.append(Roll())
        self._line = ""
        self._lines = self._characters = 0
        if self._fence:
            cuts.append(Write(f"{self._fence}{self._fence_info}\n"))
        self._blank_before = False


def split_cuts(cuts: list[Cut]) -> tuple[list[Cut], list[str], list[Cut]]:
    """The cuts that end the open segment, the complete segments after it, and the cuts that begin the new one."""
    rolls = [index for index, cut in enumerate(cuts) if isinstance(cut, Roll)]
    if len(rolls) < 2:
        return cuts, [], []
    first, last = rolls[0], rolls[-1]
    whole = ["".join(cut.text for cut in cuts[start:end] if isinstance(cut, Write)) for start, end in _spans(rolls)]
    return cuts[: first + 1], whole, cuts[last + 1 :]


def _spans(rolls: list[int]) -> list[tuple[int, int]]:
    return [(start + 1, end) for start, end in itertools.pairwise(rolls)]


def segments_of(text: str) -> list[str]:
    """A complete text, cut in the same way as its stream."""
    pieces = [""]
    for cut in Segmenter().feed(text):
        match cut:
            case Write(part):
                pieces[-1] += part
            case Roll():
                pieces.append("")
    return pieces


def code_blocks(text: str) -> list[str]:
    """The contents of the fenced blocks, in order, including one that was never closed."""
    blocks: list[str] = []
    fence = ""
    lines: list[str] = []
    for line in text.splitlines():
        found = _FENCE.match(line)
        if not fence and found:
            fence, lines = found[1], []
        elif fence and found and found[1].startswith(fence) and not found[2].strip():
            blocks.append("\n".join(lines))
            fence = ""
        elif fence:
            lines.append(line)
    return [*blocks, "\n".join(lines)] if fence else blocks
