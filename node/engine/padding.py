"""Passes after the end of an answer: peers then see a multiple of so many passes, and not how long the answer was.

Who streams has the whole text before they begin. They compute the last token again and again, with fresh pads, and
nothing is done with the results.
"""

from __future__ import annotations

from msgspec import Struct

from node.model.generate import Finished, GeneratedToken
from node.privacy import Privacy

PADDED_MODES = (Privacy.SPLIT, Privacy.STRICT)
"""Modes that hide the text from those who compute; elsewhere a number of passes is no secret."""


class Padding(Struct):
    """An answer that has ended, and whose passes go on."""

    finished: Finished
    left: int
    """Passes that are still to be made, one at least."""

    def passed(self) -> list[GeneratedToken | Finished]:
        """One more pass was made: the answer's end if it was the last one."""
        self.left -= 1
        return [] if self.left else [self.finished]


def padding_after(finished: Finished, num_passes: int, multiple: int) -> Padding | None:
    """What follows an answer after so many passes behind its prompt; None: nothing.

    An answer of one token has no pass of its own, and gets a whole multiple.

    Args:
        multiple: 0 for an answer that is not padded.
    """
    left = -num_passes % multiple if multiple and num_passes else multiple
    return Padding(finished, left) if left else None
