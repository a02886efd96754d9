"""Names of devices: the host's own name, and the names that the user gives to peers here.

<data dir>/names.json   {PeerID: name}; under this node's own PeerID, the name that it tells others
"""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from node.errors import ConfigError
from node.json_file import read_bounded
from node.store.files import replace_private
from protocol.identity import PeerId, public_key_of
from protocol.limits import MAX_NAME_CHARACTERS

MAX_NAMES = 4096
MAX_FILE_BYTES = 1 << 20


def host_name() -> str:
    """The first label of this host's name, as far as it may be a device's name; empty if it has none."""
    label = socket.gethostname().partition(".")[0][:MAX_NAME_CHARACTERS].strip()
    return label if label.isprintable() else ""


def check_name(name: str) -> str:
    """The name without outer spaces; raises ConfigError if no device may have it."""
    name = name.strip()
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise ConfigError(f"{name!r} cannot be a device's name: give 1 to {MAX_NAME_CHARACTERS} printable characters")
    return name


class DeviceNames:
    """The names that the user gave. Thread-safe; a change is on the disk when its call returns."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` None: names are only in memory. Raises ConfigError for a damaged file."""
        self._path = path
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        if path is not None and path.exists():
            self._names = _read(path)

    def of(self, peer_id: str) -> str:
        """The name given to this peer here; empty if none was."""
        return self._names.get(peer_id, "")

    def all(self) -> dict[str, str]:
        """Every name by PeerID."""
        with self._lock:
            return dict(self._names)

    def give(self, peer_id: PeerId, name: str) -> None:
        """Name a peer; an empty name removes the one it has.

        Raises:
            ConfigError: another peer has this name, the name is not allowed, or the file cannot be written.
            RemoteProtocolError: this is no PeerID.
        """
        public_key_of(peer_id)
        name = check_name(name) if name.strip() else ""
        with self._lock:
            holder = next((other for other, its in self._names.items() if its.casefold() == name.casefold()), peer_id)
            if holder != peer_id:
                raise ConfigError(f"{holder} is called {name!r} already: give another name")
            names = {other: its for other, its in self._names.items() if other != peer_id}
            if name:
                names[peer_id] = name
            if len(names) > MAX_NAMES:
                raise ConfigError(f"{MAX_NAMES} devices have names: remove one first")
            if self._path is not None:
                replace_private(self._path, json.dumps(names, ensure_ascii=False).encode())
            self._names = names


def _read(path: Path) -> dict[str, str]:
    try:
        names = json.loads(read_bounded(path, MAX_FILE_BYTES))
        if not isinstance(names, dict):
            raise ValueError("it holds no object")
        for peer_id, name in names.items():
            public_key_of(peer_id)
            if check_name(name) != name:
                raise ValueError(f"{name!r} is no name")
    except Exception as exc:
        raise ConfigError(f"{path} is damaged ({exc}): delete it to forget all names of devices") from exc
    return names
