"""The root of every error Kekahyde raises on purpose, and the two sides of a protocol fault.

`LocalProtocolError` says that we erred (a bug or a wrong call); `RemoteProtocolError` says that they
erred. Any other exception that leaves `protocol/` on input from the wire is a bug.
"""

from __future__ import annotations

MAX_TEXT_CHARACTERS = 1200
"""Of an error's text. It may quote what a file or a peer says, and goes into a log or on a screen."""


class KekahydeError(Exception):
    """Any failure that a user or a peer caused; its text names the thing, the reason and the next step."""

    def __str__(self) -> str:
        """The text; of one that is too long, its beginning and its end."""
        text = super().__str__()
        if len(text) <= MAX_TEXT_CHARACTERS:
            return text
        half = MAX_TEXT_CHARACTERS // 2
        return f"{text[: half - 1]}…{text[-half:]}"


class ProtocolError(KekahydeError):
    """A rule of SPEC.md was broken."""


class LocalProtocolError(ProtocolError):
    """This side broke a rule; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other side broke a rule; its frame is dropped and, where SPEC.md says so, its link."""


class AddressError(KekahydeError):
    """A multiaddr that cannot be used."""


class SwarmKeyError(KekahydeError):
    """What was given is no swarm key. The text of the error never repeats it."""
