"""The ban list and the allow list, with times at which entries expire. They are stored and edited by command.

<data dir>/access.json   {"only_allowed": bool, "entries": [{"peer_id", "verdict": "ban"|"allow", "until", "reason"}]}
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from node.errors import ConfigError, KekahydeError
from node.store.files import replace_private
from protocol.identity import PeerId, curve_public_key_of, public_key_of

MAX_ENTRIES = 4096
MAX_REASON_CHARACTERS = 200
MAX_FILE_BYTES = 4 << 20


class Verdict(Enum):
    """What an entry says about its peer."""

    BAN = "ban"
    ALLOW = "allow"


class AccessEntry(Struct, frozen=True):
    """One peer's entry."""

    peer_id: PeerId
    verdict: Verdict
    until: float | None
    """Unix seconds; None: for ever."""
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict.value}


class AccessList:
    """Both lists. Thread-safe; a change is on the disk when its call returns. `path` None: only in memory."""

    def __init__(self, path: Path | None, unix_s: Callable[[], float]) -> None:
        """Raises ConfigError for a damaged file: a ban is never forgotten silently."""
        self._path = path
        self._unix_s = unix_s
        self._lock = threading.Lock()
        self._entries: dict[PeerId, AccessEntry] = {}
        self._banned_keys: dict[bytes, float | None] = {}
        self._only_allowed = False
        if path is not None:
            self._read(path)

    @property
    def only_allowed(self) -> bool:
        """Whether only peers on the allow list are let in."""
        return self._only_allowed

    def entries(self) -> list[AccessEntry]:
        """Entries that have not expired."""
        now = self._unix_s()
        with self._lock:
            return [entry for entry in self._entries.values() if entry.until is None or entry.until > now]

    def refusal(self, peer_id: PeerId) -> str | None:
        """Why this peer is not let in; None if it is. A ban applies to both identities of its key."""
        now = self._unix_s()
        with self._lock:
            entry = self._entries.get(peer_id)
            banned_until = self._banned_keys.get(_curve_key_of(peer_id), 0.0) if self._banned_keys else 0.0
        if entry is not None and entry.until is not None and entry.until <= now:
            entry = None
        if banned_until is None or banned_until > now:
            return f"banned: {entry.reason}" if entry is not None and entry.reason else "banned"
        if self._only_allowed and entry is None:
            return "not on the allow list"
        return None

    def is_banned(self, curve_key: bytes) -> bool:
        """Whether the peer with this CURVE key is banned."""
        now = self._unix_s()
        with self._lock:
            until = self._banned_keys.get(curve_key, 0.0)
        return until is None or until > now

    def put(self, peer_id: str, verdict: Verdict, duration_s: float | None = None, reason: str = "") -> AccessEntry:
        """Set the entry of a peer, replacing an earlier one. Raises RemoteProtocolError for an invalid PeerID."""
        public_key_of(peer_id)
        until = None if duration_s is None else self._unix_s() + duration_s
        entry = AccessEntry(PeerId(peer_id), verdict, until, reason[:MAX_REASON_CHARACTERS])
        with self._lock:
            self._forget_expired()
            if peer_id not in self._entries and len(self._entries) >= MAX_ENTRIES:
                self._make_room()
            self._entries[entry.peer_id] = entry
            self._index()
            self._write()
        return entry

    def remove(self, peer_id: str) -> bool:
        """Remove the entry of a peer; returns whether there was one."""
        with self._lock:
            removed = self._entries.pop(PeerId(peer_id), None) is not None
            if removed:
                self._index()
                self._write()
        return removed

    def set_only_allowed(self, only_allowed: bool) -> None:
        """Let in only peers on the allow list, or everybody except banned peers."""
        with self._lock:
            self._only_allowed = only_allowed
            self._write()

    def _index(self) -> None:
        bans = (entry for entry in self._entries.values() if entry.verdict is Verdict.BAN)
        self._banned_keys = {_curve_key_of(entry.peer_id): entry.until for entry in bans}

    def _make_room(self) -> None:
        """Remove the temporary ban that ends first. So a peer that is banned under ever new keys pushes out only such
        bans, never entries of the user."""
        passing = [e for e in self._entries.values() if e.until is not None and e.verdict is Verdict.BAN]
        if not passing:
            raise ConfigError(f"the lists already hold {MAX_ENTRIES} peers: remove some with `ban --remove`")
        del self._entries[min(passing, key=lambda entry: entry.until or 0.0).peer_id]

    def _forget_expired(self) -> None:
        now = self._unix_s()
        for peer_id in [peer_id for peer_id, entry in self._entries.items() if (entry.until or now + 1) <= now]:
            del self._entries[peer_id]

    def _write(self) -> None:
        if self._path is not None:
            content = {
                "only_allowed": self._only_allowed,
                "entries": [entry.as_json() for entry in self._entries.values()],
            }
            try:
                replace_private(self._path, (json.dumps(content, indent=1) + "\n").encode())
            except KekahydeError as exc:
                raise ConfigError(f"{exc}; until then the change applies only to the running node") from exc

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(MAX_FILE_BYTES))
            entries = [_entry_of(value) for value in content["entries"][:MAX_ENTRIES]]
            self._only_allowed = bool(content["only_allowed"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, KekahydeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is damaged"
            raise ConfigError(f"cannot read {path}: {reason}; restore it, or remove it to forget every ban") from exc
        self._entries = {entry.peer_id: entry for entry in entries}
        self._index()


@lru_cache(maxsize=2 * MAX_ENTRIES)
def _curve_key_of(peer_id: PeerId) -> bytes:
    return curve_public_key_of(public_key_of(peer_id))


def _entry_of(value: dict[str, Any]) -> AccessEntry:
    public_key_of(value["peer_id"])
    until = None if value["until"] is None else float(value["until"])
    if until is not None and not math.isfinite(until):
        raise ValueError("a ban ends at some time, or never")
    return AccessEntry(PeerId(value["peer_id"]), Verdict(value["verdict"]), until, str(value.get("reason", "")))
