"""What a user may show to others: the findings and the versions, without identities, addresses, names and paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node.doctor.finding import Finding
from node.version import VERSION
from protocol.limits import PROTOCOL_VERSION

LIBRARIES = (
    "pyzmq",
    "PyNaCl",
    "cbor2",
    "numpy",
    "torch",
    "tokenizers",
    "aiohttp",
    "textual",
    "msgspec",
    "llguidance",
)
_PEER = re.compile(r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}")
_ADDRESS = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])"
    r"|(?<![\w:])(?:(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}"
    r"|(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,5})?::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,5})?)"
)
_NAME_IN_ADDRESS = re.compile(r"/(dns[46]?)/[^/\s]+")
_SECRET = re.compile(r"(?<!\w)[0-9a-f]{64}(?!\w)|kekahyde:\d+:[\w-]+|kek-[\w-]{20,}")
LOOPBACK = frozenset({"127.0.0.1", "0.0.0.0", "::", "::1"})


class Redactor:
    """Replaces what identifies people and devices; the same thing always gets the same word.

    Args:
        data_dir: becomes DATA_DIR.
    """

    def __init__(self, data_dir: Path) -> None:
        places = [(str(data_dir.resolve()), "DATA_DIR"), (str(data_dir), "DATA_DIR")]
        places += [(str(Path.home()), "~"), (socket.gethostname(), "HOST"), (os.environ.get("USER", ""), "USER")]
        self._places = [(text, word) for text, word in places if len(text) > 2]
        self._words: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The text without what identifies anybody."""
        for place, word in self._places:
            text = text.replace(place, word)
        text = _PEER.sub(lambda match: self._word("PEER", match.group()), text)
        text = _SECRET.sub(lambda match: self._word("ID", match.group()), text)
        text = _NAME_IN_ADDRESS.sub(lambda match: f"/{match[1]}/{self._word('NAME', match.group())}", text)
        return _ADDRESS.sub(self._address, text)

    def _address(self, match: re.Match[str]) -> str:
        return match.group() if match.group() in LOOPBACK else self._word("ADDRESS", match.group())

    def _word(self, kind: str, found: str) -> str:
        number = sum(word.startswith(f"{kind}-") for word in self._words.values()) + 1
        return self._words.setdefault(found, f"{kind}-{number}")


def report(findings: Sequence[Finding], data_dir: Path) -> dict[str, Any]:
    """Versions, the machine, and the findings, redacted."""
    redact = Redactor(data_dir)
    return {
        "kekahyde": VERSION,
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "findings": [{name: redact(value) for name, value in finding.as_json().items()} for finding in findings],
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
