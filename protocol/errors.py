"""The root of every error Kekahyde raises on purpose, and the two sides of a protocol fault.

`LocalProtocolError` says that we erred (a bug or a wrong call); `RemoteProtocolError` says that they
erred. Any other exception that leaves `protocol/` on input from the wire is a bug.
"""

from __future__ import annotations


class KekahydeError(Exception):
    """Any failure that a user or a peer caused; its text names the thing, the reason and the next step."""


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
