"""Keys for programs: who may ask a gateway that listens beyond loopback, and for how little privacy.

<data dir>/keys.json    {"keys": [KEY, ...]}, mode 0600: of each key only its hash
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections import deque
from pathlib import Path
from typing import ClassVar

import msgspec
from msgspec import Struct

from node.errors import ConfigError
from node.gateway.http.errors import ApiError
from node.privacy import Privacy
from node.store.files import replace_private
from protocol.discreet import Discreet

KEYS_NAME = "keys.json"
PREFIX = "kek-"
KEY_BYTES = 32
MAX_KEYS = 256
MAX_FILE_BYTES = 1 << 20
WINDOW_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LEVELS = {Privacy.TRUSTED: 0, Privacy.AUTO: 0, Privacy.SPLIT: 1, Privacy.STRICT: 2, Privacy.LOCAL: 3}
"""`auto` may choose `trusted`."""


class Key(Discreet, Struct, frozen=True):
    """What is kept of a key."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("sha256",)
    name: str
    sha256: str
    """Of the key, in hex. A key has 256 random bits, so that one fast hash is enough."""
    min_privacy: Privacy | None = None
    """Requests for less are refused."""
    per_minute: int | None = None
    """Most requests in a minute."""

    def privacy(self, asked: Privacy) -> Privacy:
        """The mode for a request with this key; raises ApiError 403 if it asks for less than the key allows."""
        least = self.min_privacy
        if least is None or LEVELS[asked] >= LEVELS[least]:
            return asked
        if asked is Privacy.AUTO:
            return least
        said = f"the key {self.name!r} allows no less than {least.value}: ask for that, or for auto"
        raise ApiError(403, said, "privacy_too_low", "privacy")


class KeyBook:
    """The keys of a data directory; a change by another process counts at once."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / KEYS_NAME
        self._seen: tuple[int, int] | None = None
        self._keys: list[Key] = []
        self._asked: dict[str, deque[float]] = {}

    def all(self) -> list[Key]:
        """All keys; raises ConfigError for a file that cannot be read."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._keys, self._seen = [], None
            return []
        if (status.st_mtime_ns, status.st_ino) != self._seen:
            try:
                if status.st_size > MAX_FILE_BYTES:
                    raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
                read = msgspec.json.decode(self._path.read_bytes(), type=dict[str, list[Key]])
                self._keys, self._seen = read["keys"], (status.st_mtime_ns, status.st_ino)
            except (OSError, ValueError, KeyError, msgspec.MsgspecError) as exc:
                raise ConfigError(f"cannot read {self._path} ({exc}): delete it, and add the keys again") from exc
        return self._keys

    def add(self, name: str, min_privacy: Privacy | None, per_minute: int | None) -> str:
        """A new key, which is kept nowhere; raises ConfigError for a name that is not legal or in use."""
        known = self.all()
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is not a name of a key: use letters, digits, '.', '_' and '-'")
        if any(key.name == name for key in known):
            raise ConfigError(f"there is a key {name!r} already: remove it first (`kekahyde-node key remove {name}`)")
        if len(known) >= MAX_KEYS:
            raise ConfigError(f"there are {MAX_KEYS} keys already: remove one first")
        secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        self._write([*known, Key(name, _hash(secret), min_privacy, per_minute)])
        return secret

    def remove(self, name: str) -> None:
        """Remove a key; raises ConfigError if there is none of this name."""
        known = self.all()
        left = [key for key in known if key.name != name]
        if len(left) == len(known):
            names = ", ".join(key.name for key in known) or "none"
            raise ConfigError(f"no key is called {name!r}; the keys are: {names}")
        self._write(left)

    def find(self, shown: str | None) -> Key | None:
        """The key that a request shows; None for anything else, which on loopback is allowed."""
        if shown is None or not shown.startswith(PREFIX):
            return None
        digest = _hash(shown)
        return next((key for key in self.all() if secrets.compare_digest(key.sha256, digest)), None)

    def count(self, key: Key) -> None:
        """Count a request for an answer; raises ApiError 429 above the key's limit."""
        if key.per_minute is None:
            return
        times, now = self._asked.setdefault(key.name, deque()), time.monotonic()
        while times and times[0] < now - WINDOW_S:
            times.popleft()
        if len(times) >= key.per_minute:
            wait_s = max(1, round(times[0] + WINDOW_S - now))
            said = f"the key {key.name!r} allows {key.per_minute} requests a minute: try again in {wait_s} s"
            raise ApiError(429, said, "rate_limit", headers={"Retry-After": str(wait_s)})
        times.append(now)

    def _write(self, keys: list[Key]) -> None:
        text = json.dumps({"keys": msgspec.to_builtins(keys)}, indent=1)
        replace_private(self._path, text.encode())
        self._seen = None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
