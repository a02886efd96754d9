"""Text from tokens that come one by one, never half a character.

Decoding is not a sum over tokens: a character may be spread over several, a run of byte tokens is one valid text or
all replacement characters, and the first word loses its space. So tokens are held until their text is settled, and
they are decoded together with the last settled token, whose text is then cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"


class TextStream:
    """What `push` and `finish` return, joined, is the decoding of all tokens together."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], special_ids: frozenset[int], byte_ids: frozenset[int]
    ) -> None:
        self._decode = decode
        self._special_ids = special_ids
        self._byte_ids = byte_ids
        self._settled: list[int] = []
        """The last token whose text was given out; none at the start."""
        self._held: list[int] = []
        """Tokens whose text was not given out."""

    def push(self, token_id: int) -> str:
        """The text that this token settles: often its own, empty while a character is incomplete."""
        if token_id in self._special_ids:
            return ""
        self._held.append(token_id)
        if token_id in self._byte_ids:
            return ""
        text = self._held_text()
        # An incomplete character decodes to one U+FFFD at the end; a real one waits for its neighbour too.
        return "" if text.endswith(REPLACEMENT) else self._settle(text)

    def finish(self) -> str:
        """The text of what is still held, incomplete as it is."""
        return self._settle(self._held_text()) if self._held else ""

    def _held_text(self) -> str:
        if not self._settled:
            return self._decode(self._held)
        return self._decode(self._settled + self._held)[len(self._decode(self._settled)) :]

    def _settle(self, text: str) -> str:
        self._settled = self._held[-1:]
        self._held = []
        return text
