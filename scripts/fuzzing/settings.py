"""Targets: the files in which a node keeps its settings and what it knows. A damaged one is refused by name."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from node.errors import KekahydeError
from node.gateway.http.keys import KEYS_NAME, KeyBook
from node.guards.book import Guard, GuardBook, LanePlaces, read_book, write_book
from node.privacy import Privacy
from node.serving.lending import Lending, LendingRules
from node.store.names import NAMES_FILE, Names
from node.swarm.access import AccessList, Verdict
from node.swarm.credentials import KnownModel, Swarm, read_stored, store_swarm
from node.swarm.device_names import DeviceNames
from node.swarm.memory import SwarmMemory
from node.transfer.published import PublishedModels
from node.transfer.replicator import names_of_replicas
from node.trust.paired import FILE_NAME, PairedDevices
from protocol.multiaddr import parse_multiaddr
from protocol.pairing.code import CERTIFICATE_DOMAIN, Certificate, certified
from scripts.fuzzing import samples
from scripts.fuzzing.files import scratch
from scripts.fuzzing.forms import CBOR, NAMED
from scripts.fuzzing.target import Target

READERS: dict[str, Callable[[Path], object]] = {
    "swarm.json": lambda path: read_stored(path.parent),
    "access.json": lambda path: AccessList(path, time.time).is_banned(samples.OTHER.curve_public_key),
    FILE_NAME: lambda path: PairedDevices(samples.ME, path.parent).devices(),
    "lending.json": lambda path: Lending(path).refusal,
    "names.json": lambda path: DeviceNames(path).all(),
    "published.json": lambda path: PublishedModels(path).all(),
    "replicas.json": names_of_replicas,
    "guards.json": lambda path: read_book(path),
    KEYS_NAME: lambda path: KeyBook(path.parent).all(),
    f"models/{NAMES_FILE}": lambda path: Names(path.parent).all(),
    "seq": lambda path: SwarmMemory(path.parent).seq(),
}
MODEL_ID = samples.HASH.hex()
"""Of a model that nobody has."""


def folder() -> Path:
    """A data directory with a key."""
    place = scratch() / "settings"
    if not place.exists():
        (place / "models").mkdir(parents=True)
        (place / "swarm.key").write_text(samples.KEY.secret.hex())
    return place


def read_file(data: bytes) -> None:
    """One file of a data directory, under its name."""
    name, _, content = data.partition(b"\n")
    read = READERS.get(name.decode("latin-1"))
    if read is None:
        return
    path = folder() / name.decode()
    path.write_bytes(content)
    try:
        read(path)
    finally:
        path.unlink()


def read_anchors(data: bytes) -> None:
    """The records of the last run."""
    (folder() / "anchors").write_bytes(data)
    SwarmMemory(folder()).anchors()


def _written(place: Path) -> None:
    """Every file, as the node writes it."""
    (place / "models").mkdir()
    address = parse_multiaddr(f"{samples.ADDRESS}/p2p/{samples.OTHER.peer_id}")
    store_swarm(place, Swarm(samples.KEY, (address,), (KnownModel("story", samples.HASH),)))
    access = AccessList(place / "access.json", time.time)
    access.put(samples.OTHER.peer_id, Verdict.BAN, 3600.0, "it lied")
    access.set_only_allowed(True)
    message = certified(samples.HASH, samples.ME.public_key, samples.OTHER.public_key)
    signed = (one.sign(CERTIFICATE_DOMAIN, message) for one in (samples.ME, samples.OTHER))
    devices = PairedDevices(samples.ME, place)
    certificate = Certificate(samples.HASH, samples.ME.public_key, samples.OTHER.public_key, *signed)
    devices.add(samples.OTHER.peer_id, certificate, samples.NONCE, 1.7e9)
    devices.allow_reading(samples.OTHER.peer_id, True)
    Lending(place / "lending.json").set_rules(LendingRules(False, True, (22, 6), 1 << 30, True))
    DeviceNames(place / "names.json").give(samples.OTHER.peer_id, "desk")
    PublishedModels(place / "published.json").add(MODEL_ID, True)
    KeyBook(place).add("laptop", Privacy.STRICT, 60)
    guard = Guard(samples.OTHER.peer_id, 1.0, 2.0, 3.0)
    seen = {samples.OTHER.peer_id: (1.0, 2.0)}
    write_book(
        place / "guards.json", GuardBook(1.0, 2.0, {MODEL_ID: (LanePlaces(guard, None),)}, seen, frozenset(seen))
    )
    Names(place / "models").add("story", MODEL_ID)
    memory = SwarmMemory(place)
    memory.keep_seq(1_800_000_000_000)
    memory.keep_anchors([samples.record().envelope])


def _file_seeds() -> list[bytes]:
    replica = {"model_id": MODEL_ID, "name": "story", "publisher": samples.OTHER.peer_id, "asked_unix_s": 1.5}
    with tempfile.TemporaryDirectory(prefix="kekahyde-fuzz-") as name:
        place = Path(name)
        _written(place)
        (place / "replicas.json").write_text(json.dumps({"replicas": [replica]}))
        return [name.encode() + b"\n" + (place / name).read_bytes() for name in READERS]


def _anchor_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="kekahyde-fuzz-") as name:
        _written(Path(name))
        return [(Path(name) / "anchors").read_bytes()]


TARGETS = (
    Target("settings", "a file of a data directory", read_file, (KekahydeError,), _file_seeds, NAMED),
    Target("anchors", "records of the last run", read_anchors, (), _anchor_seeds, CBOR),
)
