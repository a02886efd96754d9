"""Which swarm a data directory belongs to.

<data dir>/swarm.key    the swarm's key, 64 hex digits, mode 0600; made by the first start that finds none
<data dir>/swarm.json   {"open": bool, "bootstrap": [addresses], "models": [[name, model id in hex]], "own_key": bool}

`own_key` says that the key was made here and nobody was invited with it yet, so `join` may replace it without asking.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from node.errors import AddressError, ConfigError
from node.store.files import replace_private
from node.swarm.memory import SwarmMemory, addresses_of
from protocol.errors import SwarmKeyError
from protocol.limits import HASH_BYTES, MAX_ADDRESSES, SWARM_KEY_BYTES
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr, parse_multiaddr

ENVIRONMENT_KEY = "KEKAHYDE_SWARM_KEY"
UNFINISHED = "swarm.unfinished"
"""Holds both files in one while they are being changed."""
MAX_KEY_FILE_BYTES = 1024
MAX_SETTINGS_BYTES = 64 * 1024
MAX_KNOWN_MODELS = 64
MAX_KNOWN_ADDRESSES = 16


class KnownModel(Struct, frozen=True):
    """A model whose id an invitation or the user vouched for."""

    name: str
    model_id: bytes


class Swarm(Struct, frozen=True):
    """The swarm of a node."""

    key: SwarmKey | None
    """None: an open swarm."""
    bootstrap: tuple[Multiaddr, ...] = ()
    models: tuple[KnownModel, ...] = ()
    own_key: bool = False

    @property
    def is_open(self) -> bool:
        return self.key is None

    @property
    def name(self) -> str:
        """The swarm's name for people."""
        return "open" if self.key is None else self.key.name


def load_swarm(
    folder: Path, environment: Mapping[str, str], key_file: Path | None = None, is_open: bool = False
) -> Swarm:
    """The swarm to use: first the user's explicit choice, then the environment, then the data directory's own.

    Raises ConfigError for a key or a settings file that cannot be used.
    """
    if is_open and key_file is not None:
        raise ConfigError("an open swarm has no key: give --open or --swarm-key")
    if is_open:
        return replace(_keyless(folder), own_key=False)
    if key_file is not None:
        return replace(_keyless(folder), key=_read_key(key_file), own_key=False)
    if ENVIRONMENT_KEY in environment:
        key = _parse_key(environment[ENVIRONMENT_KEY], ENVIRONMENT_KEY)
        return replace(_keyless(folder), key=key, own_key=False)
    stored = read_stored(folder)
    if stored is None and (problem := lost_key(folder)) is not None:
        raise ConfigError(problem)
    if stored is None:
        stored = Swarm(SwarmKey(secrets.token_bytes(SWARM_KEY_BYTES)), own_key=True)
        store_swarm(folder, stored)
    return stored


def known_addresses(swarm: Swarm, folder: Path) -> tuple[Multiaddr, ...]:
    """Last known addresses of members: first those of the invitation, then those of the last run."""
    anchors = [address for record in SwarmMemory(folder).anchors() for address in addresses_of(record)[:1]]
    return tuple(dict.fromkeys([*swarm.bootstrap, *anchors]))[:MAX_KNOWN_ADDRESSES]


def read_stored(folder: Path) -> Swarm | None:
    """The swarm that the directory itself names; None if no node has started on it yet. Raises ConfigError."""
    settings, keyless = _settings(folder), _keyless(folder)
    if settings.get("open") is True:
        return keyless
    if "key" in settings:
        return replace(keyless, key=_parse_key(str(settings["key"]), str(folder / UNFINISHED)))
    return replace(keyless, key=_read_key(folder / "swarm.key")) if (folder / "swarm.key").exists() else None


def lost_key(folder: Path) -> str | None:
    """What to do if the directory belongs to a swarm and its key is missing; None if nothing is missing.

    A new key would create a swarm with one member, whose invitations lead to members that refuse them.
    """
    settings = _settings(folder)
    if (
        (folder / "swarm.key").exists()
        or "key" in settings
        or settings.get("open") is True
        or settings.get("own_key") is not False
    ):
        return None
    return (
        f"{folder / 'swarm.key'} is missing, but {folder / 'swarm.json'} says that this device is in a swarm: "
        "restore the key, or join again with an invitation; or remove both files to begin a new swarm"
    )


def finish_storing(folder: Path) -> None:
    """Bring a change of both files to its end, where a process was killed before; only who holds the lock of the
    directory calls it."""
    if (folder / UNFINISHED).exists() and (decided := read_stored(folder)) is not None:
        store_swarm(folder, decided)


def store_swarm(folder: Path, swarm: Swarm) -> None:
    """Write both files. What is decided is written first, into one file that readers prefer: whenever this is
    interrupted, they see either the old pair or the new one."""
    settings: dict[str, Any] = {
        "open": swarm.is_open,
        "bootstrap": [str(address) for address in swarm.bootstrap],
        "models": [[model.name, model.model_id.hex()] for model in swarm.models],
        "own_key": swarm.own_key,
    }
    decided = settings if swarm.key is None else {**settings, "key": swarm.key.secret.hex()}
    replace_private(folder / UNFINISHED, json.dumps(decided).encode())
    if swarm.key is not None:
        replace_private(folder / "swarm.key", f"{swarm.key.secret.hex()}\n".encode())
    replace_private(folder / "swarm.json", (json.dumps(settings, indent=1) + "\n").encode())
    if swarm.key is None:
        (folder / "swarm.key").unlink(missing_ok=True)
    (folder / UNFINISHED).unlink(missing_ok=True)


def _settings(folder: Path) -> dict[str, Any]:
    """What the directory says of its swarm; with the key where a change of both files was interrupted."""
    return _read_settings(folder / UNFINISHED) or _read_settings(folder / "swarm.json")


def _keyless(folder: Path) -> Swarm:
    """The swarm that the directory names, without its key."""
    settings = _settings(folder)
    return Swarm(None, _bootstrap(settings, folder), _models(settings, folder), settings.get("own_key") is True)


def _read_key(path: Path) -> SwarmKey:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES)
    except OSError as exc:
        raise ConfigError(f"cannot read the swarm key {path}: {exc.strerror}") from exc
    return _parse_key(content.decode("ascii", "replace"), str(path))


def _parse_key(text: str, where: str) -> SwarmKey:
    try:
        return SwarmKey.from_hex(text)
    except SwarmKeyError as exc:
        raise ConfigError(f"{where} is not a swarm key: {exc}; ask a member for an invitation") from exc


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            settings = json.loads(file.read(MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"cannot read {path}: {exc}; restore it, or remove it and join again") from exc
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} does not hold a JSON object: restore it, or remove it and join again")
    return settings


def _bootstrap(settings: dict[str, Any], folder: Path) -> tuple[Multiaddr, ...]:
    texts = settings.get("bootstrap", [])
    try:
        addresses = [parse_multiaddr(text) for text in texts[:MAX_ADDRESSES]]
    except (AddressError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{folder / 'swarm.json'}: `bootstrap` has an invalid address: {exc}; join again") from exc
    return tuple(address for address in addresses if address.peer_id is not None)


def _models(settings: dict[str, Any], folder: Path) -> tuple[KnownModel, ...]:
    try:
        models = [KnownModel(str(name), bytes.fromhex(text)) for name, text in settings.get("models", [])]
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{folder / 'swarm.json'}: `models` is not [[name, model id]]: {exc}; join again") from exc
    if len(models) > MAX_KNOWN_MODELS or any(len(model.model_id) != HASH_BYTES for model in models):
        raise ConfigError(f"{folder / 'swarm.json'}: `models` has an invalid model id; join again")
    return tuple(models)
