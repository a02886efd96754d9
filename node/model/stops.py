"""Finds stop strings across the borders of tokens; they are never shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

_FIRST_SYMBOL, _OTHER_WORD = 0xD800, "\udfff"
"""Each special token's word is kept as half of a surrogate pair, which no text contains; all words that are in no
stop string share one symbol."""


class StopMatcher:
    """Passes text up to the first stop string, and holds back text that may be the beginning of one.

    If stop strings overlap, the one that ends first counts, and of those that end together the longest; so the result
    does not depend on how the text was cut into pieces.

    Special tokens are not text and never shown, but a stop string may contain their words. A word counts only as a
    whole, so "end" is not found in `<|end|>`. A string without words is searched in the shown text.
    """

    def __init__(self, strings: Sequence[str] = (), words: Iterable[str] = ()) -> None:
        """
        Args:
            words: the words of special tokens.
        """
        self._strings = [string for string in strings if string]
        named = sorted((word for word in words if any(word in string for string in self._strings)), key=len)[::-1]
        self._symbols = {
            word: chr(_FIRST_SYMBOL + i) for i, word in enumerate(named[: ord(_OTHER_WORD) - _FIRST_SYMBOL])
        }
        worded = {string: self._with_symbols(string) for string in self._strings}
        self._worded = [with_symbols for string, with_symbols in worded.items() if with_symbols != string]
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        """Text that was not given out yet, with the words in it."""
        self.stopped = False
        """Whether a stop string was found; then nothing more comes out."""

    def push(self, text: str) -> str:
        """The part of the text so far that was not given out yet and in which no stop string can begin."""
        return self._take(text) if self._strings else text

    def push_word(self, word: str) -> str:
        """Like `push`, for the word of a special token."""
        return self._take(self._symbols.get(word, _OTHER_WORD)) if self._worded else ""

    def finish(self) -> str:
        """The rest of the text, which turned out not to be part of a stop string."""
        return "" if self.stopped else self._release(len(self._held))

    def _take(self, symbols: str) -> str:
        if self.stopped:
            return ""
        num_old = len(self._held)
        self._held += symbols
        found = [
            (where[start + len(string) - 1], where[start])
            for view, where, strings in self._views()
            for string in strings
            if (start := view.find(string, max(0, num_old - len(string) + 1) if strings is self._worded else 0)) >= 0
        ]
        if found:
            self.stopped = True
            _, start = min(found)
            return self._release(start)
        shown = self._release(len(self._held) - self._possible_prefix())
        self._forget_words()
        return shown

    def _views(self) -> Iterator[tuple[str, Sequence[int], list[str]]]:
        """The held text without words and with them, the position of each symbol, and the strings to search in it."""
        where = [i for i, symbol in enumerate(self._held) if not _is_word(symbol)]
        yield "".join(self._held[i] for i in where), where, self._strings
        if self._worded:
            yield self._held, range(len(self._held)), self._worded

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        return "".join(symbol for symbol in released if not _is_word(symbol))

    def _possible_prefix(self) -> int:
        """Length of the longest suffix of the held text with which a stop string begins."""
        return max(
            (
                len(self._held) - where[-length]
                for view, where, strings in self._views()
                for length in range(1, min(len(view), self._longest - 1) + 1)
                if any(string.startswith(view[-length:]) for string in strings)
            ),
            default=0,
        )

    def _forget_words(self) -> None:
        """Drop words that are too far back for any stop string, because special tokens may come without limit."""
        first = len(self._held) - self._longest + 1
        self._held = "".join(symbol for i, symbol in enumerate(self._held) if i >= first or not _is_word(symbol))

    def _with_symbols(self, string: str) -> str:
        for word, symbol in self._symbols.items():
            string = string.replace(word, symbol)
        return string


def _is_word(symbol: str) -> bool:
    return "\ud800" <= symbol <= "\udfff"
