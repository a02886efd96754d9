"""Parses what a user types to name a model of the hub."""

from __future__ import annotations

import re

from msgspec import Struct

from node.errors import ConfigError
from node.hub.registry import RegistryPackage
from node.hub.short_names import SHORT_NAMES

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,255}}))?(?::(?P<file>{_PART}))?"
)
_PAGE = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>{_PART}/{_PART})"
    r"(?:/(?:tree|blob|resolve|raw)/(?P<revision>[A-Za-z0-9][A-Za-z0-9._-]*)(?:/(?P<file>[^?#]*))?)?/?(?:[?#].*)?"
)
"""A page of the hub, as a browser shows its address."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubReference(Struct, frozen=True):
    """A repository and its revision: a branch, a tag, or a commit's hash, which pins the version."""

    repo: str
    revision: str | None = None
    file: str | None = None
    """A GGUF file of the repository, or the part of its name that gives its quantization, such as `Q8_0`."""
    name: str | None = None
    """The short name that the user gave."""
    package: RegistryPackage | None = None
    """A package that also has the model."""

    @property
    def is_pinned(self) -> bool:
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{self.repo}{revision}" + ("" if self.file is None else f":{self.file}")


def _of_page(text: str) -> str:
    """The reference in the address of a page; anything else as it is."""
    page = _PAGE.fullmatch(text)
    if page is None:
        return text
    name, revision = page["file"] or "", page["revision"]
    at = "" if revision in (None, "main") else f"@{revision}"
    return f"{page['repo']}{at}" + (f":{name}" if name.lower().endswith(".gguf") else "")


def parse_reference(text: str) -> HubReference:
    """Read a short name, `ORG/NAME[@REVISION][:FILE]`, or the address of a page of the hub; raises ConfigError."""
    text = _of_page(text.strip())
    known = SHORT_NAMES.get(text.lower())
    if known is not None:
        return HubReference(known.repo, name=text.lower(), package=known.package)
    match = _REFERENCE.fullmatch(text)
    if match is None or ".." in text or "--" in match["repo"]:
        raise ConfigError(
            f"{text!r} is not a model: give ORG/NAME[@REVISION][:FILE.gguf] of the Hugging Face hub, a short name "
            f"({', '.join(list(SHORT_NAMES)[:4])}, ...), or the 64 hexadecimal digits of a model id that peers have"
        )
    return HubReference(match["repo"], match["revision"], match["file"])
