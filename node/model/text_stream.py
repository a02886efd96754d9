"""Text from tokens that come one by one, never half a character, and never later than it is certain.

A character may be spread over several tokens, so bytes wait until they are one, or can become none any more: at most
three at a time. All else is decoded together with the token before it, whose text is then cut off, as decoding is
not a sum over tokens: the first word loses its space.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """What `push` and `finish` return, joined, is the text of all tokens together."""

    def __init__(self, decode: Callable[[Sequence[int]], str], bytes_of: Callable[[int], bytes | None]) -> None:
        """
        Args:
            decode: the text of tokens that are not given as bytes, or begin the text.
            bytes_of: the bytes of UTF-8 that a token stands for, none for a special token; None for one whose text
                stands for itself.
        """
        self._decode = decode
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._last: list[int] = []
        """The last token with a text; none at the start."""

    def push(self, token_id: int) -> str:
        """The text that this token settles: often its own, empty while a character is incomplete."""
        piece = self._bytes_of(token_id)
        if piece == b"":
            return ""
        before, self._last = self._last, [token_id]
        if piece is None:
            return self._utf8.decode(b"", final=True) + self._after(before, token_id)
        text = self._utf8.decode(piece)
        return text if before or text != " " else self._decode([token_id])  # the first space may be dropped

    def finish(self) -> str:
        """The text of what is still held, incomplete as it is."""
        return self._utf8.decode(b"", final=True)

    def _after(self, before: Sequence[int], token_id: int) -> str:
        text = self._decode([*before, token_id])
        return text[len(self._decode(before)) :] if before else text
