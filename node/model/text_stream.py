"""Text from tokens that come one by one: never half a character, and always as soon as it is certain.

A character may be spread over several tokens, so bytes wait until they form one, or cannot form one any more: at most
three at a time. Every other token is decoded together with the token before it, whose text is then removed, because
the text of two tokens is not always the sum of their texts: the first word loses its space.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Streams text; the results of `push` and `finish` together are the text of all tokens."""

    def __init__(self, decode: Callable[[Sequence[int]], str], bytes_of: Callable[[int], bytes | None]) -> None:
        """
        Args:
            decode: the text of tokens that are not given as bytes, or begin the text.
            bytes_of: the UTF-8 bytes of a token, which are empty for a special token; None for a token with a text
                instead.
        """
        self._decode = decode
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._last: list[int] = []
        """The last token with a text; empty at the start."""

    def push(self, token_id: int) -> str:
        """The text that this token makes certain: often its own, empty while a character is incomplete."""
        piece = self._bytes_of(token_id)
        if piece == b"":
            return ""
        before, self._last = self._last, [token_id]
        if piece is None:
            return self._utf8.decode(b"", final=True) + self._after(before, token_id)
        text = self._utf8.decode(piece)
        return text if before or text != " " else self._decode([token_id])  # the first space may be dropped

    def finish(self) -> str:
        """The text of the bytes that still wait, even if they are incomplete."""
        return self._utf8.decode(b"", final=True)

    def _after(self, before: Sequence[int], token_id: int) -> str:
        text = self._decode([*before, token_id])
        return text[len(self._decode(before)) :] if before else text
