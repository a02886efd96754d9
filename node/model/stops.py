"""Stop strings, found across the borders of tokens and never shown."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Lets text through up to the first stop string, and holds back what may be the beginning of one.

    Where stop strings overlap, the one that ends first counts, and of those that end together the longest; so the
    result does not depend on how the text was cut into pieces.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""
        self.stopped = False
        """A stop string was found; nothing more comes out."""

    def push(self, text: str) -> str:
        """The part of the text so far that no stop string can begin in and that was not given out yet."""
        if self.stopped:
            return ""
        self._held += text
        found = [(start + len(string), start) for string in self._strings if (start := self._held.find(string)) >= 0]
        if found:
            self.stopped = True
            _, start = min(found)
            return self._release(start)
        return self._release(len(self._held) - self._possible_prefix())

    def finish(self) -> str:
        """The text that was held back in vain."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _possible_prefix(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = min(len(self._held), max(map(len, self._strings), default=1) - 1)
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(string.startswith(end) for string in self._strings):
                return length
        return 0
