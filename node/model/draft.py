"""Guesses the next tokens of a text from the text itself: what followed the same few tokens before.

A guess costs nothing if it is wrong, for the answer: every token is chosen as without it (see `engine.speculation`).
Lookup of earlier n-grams: Saxena 2023, «prompt lookup decoding»; LLMA, arXiv 2304.04487.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_WINDOW = 8
"""Rows of a pass with guesses, at most: a chunk of so many rows is one bucket on the wire."""
MOST_REMEMBERED = 8192
"""Tokens of a prompt that are looked at: a token takes half a kilobyte here."""
LONGEST = 4
"""Tokens of context that are looked up, at most: more of them follow each other by chance no longer."""


class TextDrafter:
    """The text so far, and where each short run of its tokens stood last."""

    def __init__(self, token_ids: Sequence[int] = ()) -> None:
        token_ids = token_ids[-MOST_REMEMBERED:]
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        """The place after the last occurrence of a run that something follows."""
        self.extend(token_ids)

    def extend(self, token_ids: Sequence[int]) -> None:
        """The text goes on with these tokens."""
        for token_id in token_ids:
            place = len(self._tokens)
            for length in range(1, min(LONGEST, place) + 1):
                self._behind[tuple(self._tokens[place - length :])] = place
            self._tokens.append(token_id)

    def guess(self, count: int) -> list[int]:
        """So many tokens that may follow; where nothing is known, the last token again."""
        known = self._tokens
        for length in range(min(LONGEST, len(known)), 0, -1):
            place = self._behind.get(tuple(known[len(known) - length :]))
            if place is not None:
                period = len(known) - place  # beyond its end, the text is taken to go on as it did since then
                return [known[place + index % period] for index in range(count)]
        return [known[-1] if known else 0] * count
