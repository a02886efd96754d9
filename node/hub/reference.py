"""What a user types to name a model of the hub."""

from __future__ import annotations

import re

from msgspec import Struct

from node.errors import ConfigError

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,255}}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubReference(Struct, frozen=True):
    """A repository, and which state of it: a branch, a tag, or a commit's hash, which pins it."""

    repo: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def parse_reference(text: str) -> HubReference:
    """Read `ORG/NAME` or `ORG/NAME@REVISION`; raises ConfigError."""
    match = _REFERENCE.fullmatch(text)
    if match is None or ".." in text or "--" in match["repo"]:
        raise ConfigError(
            f"{text!r} names no model: give ORG/NAME or ORG/NAME@REVISION of the Hugging Face hub, "
            "or the 64 hexadecimal digits of a model id for one that peers have"
        )
    return HubReference(match["repo"], match["revision"])
