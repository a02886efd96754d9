"""Checks of a data directory: access, secrets, the swarm it is in, lists and models."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from node.doctor.finding import Finding, Level, broken, note, ok
from node.errors import KekahydeError
from node.guards.book import read_book
from node.paths import IDENTITY_BYTES, DataDir
from node.places import TOKEN_NAME, read_token
from node.store.library import Library
from node.swarm.access import AccessList
from node.swarm.credentials import ENVIRONMENT_KEY, UNFINISHED, load_swarm, lost_key, read_stored
from node.swarm.memory import SwarmMemory
from node.trust.paired import PairedDevices

SECRETS = ("identity.key", "swarm.key", "swarm.json", UNFINISHED, "anchors", TOKEN_NAME, "paired.json")
OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO


def folder_findings(data_dir: Path) -> list[Finding]:
    """All checks of the directory; they create and change nothing."""
    if not data_dir.exists():
        above = next(folder for folder in data_dir.absolute().parents if folder.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            step = f"make {data_dir} with rights for this user, or choose another --data-dir"
            return [broken("data directory", f"{data_dir} does not exist; this user may not write {above}", step)]
        return [note("data directory", f"{data_dir} does not exist yet", "the first start of a node creates it")]
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        step = f"it belongs to uid {data_dir.stat().st_uid}: chown it to yourself, or choose another"
        return [broken("data directory", f"{data_dir} cannot be read and written by this user", step)]
    return [*_access(data_dir), _identity(data_dir), _swarm(data_dir), *_state(data_dir), *_models(data_dir)]


def _access(data_dir: Path) -> list[Finding]:
    """Secrets that others on this device could read."""
    found = []
    for name in SECRETS:
        path = data_dir / name
        if path.exists() and path.stat().st_mode & OTHERS_MAY:
            text = f"others on this device have access to {path} (mode {stat.S_IMODE(path.stat().st_mode):04o})"
            found.append(
                broken("keys", text, f"chmod 600 {path}; if others may have read it, replace it by a new key")
            )
    if found:
        return found
    if data_dir.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return [broken("data directory", f"others may write into {data_dir}", f"chmod 700 {data_dir}")]
    return [ok("data directory", f"{data_dir}, only this user can read the secrets")]


def _identity(data_dir: Path) -> Finding:
    path = data_dir / "identity.key"
    if not path.exists():
        return note("identity", "none yet", "the first start of a node creates it")
    try:
        size = len(path.read_bytes())
    except OSError as exc:
        return broken("identity", f"{path} cannot be read: {exc.strerror}", f"make it readable: chmod 600 {path}")
    if size != IDENTITY_BYTES:
        step = "restore it from a backup, or move it away to become a new node"
        return broken("identity", f"{path} has {size} bytes instead of {IDENTITY_BYTES}", step)
    return ok("identity", "whole")


def _swarm(data_dir: Path) -> Finding:
    try:
        stored, lost = read_stored(data_dir), lost_key(data_dir)
        if ENVIRONMENT_KEY in os.environ:
            swarm = load_swarm(data_dir, os.environ)
            return note(
                "swarm", f"{swarm.name}, by the variable {ENVIRONMENT_KEY}", "unset it to use the directory's own"
            )
    except KekahydeError as exc:
        return broken("swarm", str(exc), "restore the file, or join again with an invitation of a member")
    if lost is not None:
        return broken("swarm", lost, "`kekahyde-node join LINE` with an invitation of a member")
    if stored is None:
        return note("swarm", "none yet", "`kekahyde-node join LINE` joins one; the first start creates a new one")
    if stored.own_key and not stored.bootstrap:
        step = "`kekahyde-node invite` prints a line for another device; or `join` another device's swarm"
        return note("swarm", f"{stored.name}, created here, and nobody was invited yet", step)
    return ok(
        "swarm",
        f"{stored.name}, addresses of members: {len(stored.bootstrap)}, models invited to: {len(stored.models)}",
    )


def _state(data_dir: Path) -> list[Finding]:
    """Files that would make a start fail."""

    def paired() -> None:
        if _identity(data_dir).level is Level.OK:
            PairedDevices(DataDir(data_dir).identity(), data_dir)

    access = partial(AccessList, data_dir / "access.json", time.time)
    readers: tuple[Callable[[], object], ...] = (
        lambda: SwarmMemory(data_dir).seq(),
        access,
        paired,
        lambda: read_book(DataDir(data_dir).guards),
        lambda: read_token(data_dir),
    )
    found = []
    for read in readers:
        try:
            read()
        except KekahydeError as exc:
            found.append(broken("state", str(exc), "restore the file from a backup, or remove it"))
    if not found and (listed := access().entries()):
        found.append(ok("lists", f"{len(listed)} peers on the allow and ban lists"))
    return found


def _models(data_dir: Path) -> list[Finding]:
    if not (data_dir / "models").exists():
        return [
            note("models", "none imported yet", "`story` comes with the program; `kekahyde-node import` adds others")
        ]
    try:
        models = Library(data_dir / "models").list()
    except KekahydeError as exc:
        return [broken("models", str(exc), "see the message; `kekahyde-node import FOLDER` imports a model again")]
    damaged = [model for model in models if model.problem]
    found = [
        broken("models", f"{', '.join(model.names) or model.model_id[:16]}: {model.problem}", "import it again")
        for model in damaged
    ]
    return found or [ok("models", f"{len(models)} can be used")]
