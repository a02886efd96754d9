"""What is done while the process is killed at some write, and what must hold of the disk afterwards.

After a death the product's own readers read every file: they see the old state or the new one and nothing between.
The same work then succeeds, and ends in the new state.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from node.cli.main import main as program
from node.gateway.http.keys import KeyBook
from node.guards.book import Guard, GuardBook, LanePlaces, read_book, write_book
from node.kernels import select_kernels
from node.model.unit import UnitRef
from node.paths import DataDir
from node.places import read_token, token_of
from node.serving.lending import Lending, LendingRules
from node.store.importer import import_checkpoint
from node.store.library import Library
from node.store.partial import PartialModel, partial_path
from node.store.thin import is_reduced, reduce_unit
from node.swarm.access import AccessList, Verdict
from node.swarm.credentials import Swarm, load_swarm, read_stored, store_swarm
from node.swarm.device_names import DeviceNames
from node.swarm.memory import SwarmMemory
from node.transfer.disk import BlobDisk
from node.transfer.published import PublishedModels
from node.trust.paired import PairedDevices
from protocol.finding.invitation import format_invitation
from protocol.limits import PIECE_BYTES
from protocol.multiaddr import parse_multiaddr
from protocol.pairing.code import CERTIFICATE_DOMAIN, Certificate, certified
from protocol.transfer.outline import outline_of_one_piece
from scripts.fuzzing import samples
from scripts.fuzzing.tiny_model import write_checkpoint
from tui.archive import Archive
from tui.conversation import Answer, Conversation, Turn
from tui.settings import SettingsFile

NODE = ("--headless", "--json", "--no-mdns", "--until-stdin-ends", "--threads", "1")
SEQS = 4
CHECKPOINT, DATA = "checkpoint", "data"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a process does. All functions get a folder that holds the data directory, and what is needed
    beside it."""

    name: str
    prepare: Callable[[Path], None]
    """What is there before."""
    work: Callable[[Path], object]
    state: Callable[[Path], Any]
    """What the product reads of it."""
    may_be: Callable[[Any, Any, Any], bool] | None = None
    """Whether a state is legal after a death, given those before and after the whole work; None: one of these two."""
    agrees: Callable[[Any, Any], bool] | None = None
    """Whether what was read after a death fits what the next work ends in; None: that is the new state."""


def _nothing(root: Path) -> None:
    (root / DATA).mkdir(mode=0o700)


def _run(root: Path, *words: str) -> None:
    """A command of the program; ends this process with its exit code where that is not 0."""
    program([*words, "--data-dir", str(root / DATA)])


# --- keys


@functools.cache
def story_models() -> Path:
    """The built-in model, imported once: a first start that imports it writes hundreds of times."""
    folder = Path(tempfile.mkdtemp(prefix="kekahyde-story-")) / "models"
    Library(folder).resolve("story")
    return folder


def _with_story(root: Path) -> None:
    _nothing(root)
    for path in story_models().rglob("*"):
        target = root / DATA / "models" / path.relative_to(story_models())
        if path.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


def _keys(root: Path) -> dict[str, Any]:
    data = DataDir(root / DATA)
    stored = read_stored(data.path)
    return {
        "identity": data.identity().peer_id if (data.path / "identity.key").exists() else None,
        "swarm": None if stored is None or stored.key is None else stored.key.secret,
        "token": read_token(data.path),
        "seq": SwarmMemory(data.path).seq(),
    }


def _make_keys(root: Path) -> None:
    """What the first start does with keys, without a node."""
    data = DataDir(root / DATA)
    data.identity()
    load_swarm(data.path, {})
    token_of(data.path)


def _are_whole(before: dict[str, Any], after: dict[str, Any], dead: dict[str, Any]) -> bool:
    return dead.keys() == after.keys()  # the readers refuse half a key


def _are_kept(dead: dict[str, Any], final: dict[str, Any]) -> bool:
    kept = all(value is None or value == final[name] for name, value in dead.items() if name != "seq")
    return kept and None not in final.values()


def _are_kept_and_counted(dead: dict[str, Any], final: dict[str, Any]) -> bool:
    return _are_kept(dead, final) and final["seq"] > dead["seq"]


# --- models


def _with_checkpoint(root: Path) -> None:
    _nothing(root)
    write_checkpoint(root / CHECKPOINT)


def _import(root: Path) -> None:
    import_checkpoint(root / CHECKPOINT, root / DATA / "models", "tiny")


def _models(root: Path) -> tuple[Any, ...]:
    """Name and id of every model, with every file of it read and compared with its hash."""
    library, found = Library(root / DATA / "models"), []
    if not library.models_dir.is_dir():
        return ()
    for listed in library.list():
        model = library.open(listed.model_id)
        for ref in model.units:
            model.unit(ref.layer, ref.kind)
        model.tokenizer()
        found.append((listed.model_id, tuple(listed.names)))
    return tuple(found)


def _is_there_or_not(before: Any, after: Any, dead: Any) -> bool:
    """A model without its name yet is whole, too."""
    return dead in (before, after) or [model_id for model_id, _ in dead] == [model_id for model_id, _ in after]


def _import_thin(root: Path) -> None:
    kernels = select_kernels(1)

    def reduce(folder: Path, ref: UnitRef) -> None:
        reduce_unit(folder, ref, kernels, secrets.token_bytes)

    import_checkpoint(root / CHECKPOINT, root / DATA / "models", "tiny", reduce=reduce)


def _checks(root: Path) -> int:
    """How many units of the thin model have their check; each is compared with its hash, and private."""
    models = root / DATA / "models"
    folders = [path for path in (models / partial_path(models, "").name).glob("*") if path.is_dir()]
    models_here = [model for folder in folders if (model := PartialModel.find(models, folder.name)) is not None]
    for path in models.rglob("*.check"):
        assert path.stat().st_mode & 0o77 == 0, f"{path.name} can be read by others"
    return sum(is_reduced(model, ref) for model in models_here for ref in model.manifest.units)


# --- lists and settings


def _with_identity(root: Path) -> None:
    """A node that has started before, on a tiny disk: keys, a swarm of its own, one ban, one paired device."""
    _nothing(root)
    data = root / DATA
    DataDir(data).identity()
    store_swarm(data, Swarm(samples.KEY, (parse_multiaddr(f"{samples.ADDRESS}/p2p/{samples.OTHER.peer_id}"),)))
    AccessList(data / "access.json", time.time).put(samples.OTHER.peer_id, Verdict.BAN, reason="it lied")


def _access(root: Path) -> Any:
    access = AccessList(root / DATA / "access.json", time.time)
    entries = sorted((entry.peer_id, entry.verdict.value) for entry in access.entries())
    assert (samples.OTHER.peer_id, "ban") in entries, "a ban was lost"
    return access.only_allowed, entries


def _names(root: Path) -> dict[str, str]:
    return DeviceNames(root / DATA / "names.json").all()


LINE = format_invitation(replace(samples.invitation(), swarm_key=bytes(range(32))))


def _swarm(root: Path) -> Any:
    stored = read_stored(root / DATA)
    return stored and (stored.key, stored.bootstrap, stored.models, stored.own_key)


def _start_in_it(root: Path) -> None:
    """Join, and what a start then does first."""
    _run(root, "join", LINE, "--replace")
    load_swarm(root / DATA, {})


def _pair(root: Path) -> None:
    identity = DataDir(root / DATA).identity()
    message = certified(samples.HASH, identity.public_key, samples.OTHER.public_key)
    signed = (one.sign(CERTIFICATE_DOMAIN, message) for one in (identity, samples.OTHER))
    certificate = Certificate(samples.HASH, identity.public_key, samples.OTHER.public_key, *signed)
    devices = PairedDevices(identity, root / DATA)
    devices.add(samples.OTHER.peer_id, certificate, samples.NONCE, 1.7e9, reads=True)


def _paired(root: Path) -> Any:
    devices = PairedDevices(DataDir(root / DATA).identity(), root / DATA).devices()
    return [(device.peer_id, device.may_read_prompts) for device in devices]


def _write_guards(root: Path) -> None:
    guard = Guard(samples.OTHER.peer_id, 1.0, 2.0)
    write_book(root / DATA / "guards.json", GuardBook(1.0, 2.0, {samples.HASH.hex(): (LanePlaces(guard),)}))


def _first_guards(root: Path) -> None:
    _nothing(root)
    write_book(root / DATA / "guards.json", GuardBook(1.0, 1.0))


def _count(root: Path) -> None:
    """The number of a node's records, again and again; the last one that counted is told."""
    memory = SwarmMemory(root / DATA)
    for seq in range(memory.seq() + 1, memory.seq() + 1 + SEQS):
        memory.keep_seq(seq)
        print(seq, flush=True)


def _seq(root: Path) -> int:
    seq, told = (
        SwarmMemory(root / DATA).seq(),
        (root / "said").read_text().split() if (root / "said").exists() else [],
    )
    assert seq >= max(map(int, told), default=0), f"the number went back to {seq} from {told[-1:]}"
    return seq


def _lend(root: Path) -> None:
    Lending(root / DATA / "lending.json").set_rules(LendingRules(paused=True, monthly_bytes=1 << 30))


def _lent(root: Path) -> Any:
    return Lending(root / DATA / "lending.json").rules


def _publish(root: Path) -> None:
    PublishedModels(root / DATA / "published.json").add(samples.HASH.hex(), True)


def _published(root: Path) -> Any:
    return [model.model_id for model in PublishedModels(root / DATA / "published.json").all()]


def _key(root: Path) -> None:
    if not KeyBook(root / DATA).all():
        _run(root, "key", "add", "laptop")


def _key_names(root: Path) -> Any:
    return [key.name for key in KeyBook(root / DATA).all()]


# --- a blob from a peer

BLOB = b"weights" * 4000


def _fetch(root: Path) -> None:
    """The last piece of a unit arrives, and the unit goes to its place."""
    sha256 = hashlib.sha256(BLOB).digest()
    place = root / DATA / "units" / sha256.hex()
    if place.exists():
        return
    disk = BlobDisk(root / DATA / "pieces", lambda _sha256: [place])
    present = disk.begin(sha256, outline_of_one_piece(sha256, len(BLOB)))
    if 0 not in present:
        assert len(BLOB) < PIECE_BYTES
        disk.write(sha256, 0, bytearray(BLOB))
    disk.check(sha256)
    disk.close()


def _fetched(root: Path) -> Any:
    units = list((root / DATA / "units").glob("*"))
    assert all(path.read_bytes() == BLOB for path in units), "a unit in its place is not whole"
    return len(units)


# --- the interface


def _conversation(text: str) -> Conversation:
    conversation = Conversation("abc123")
    answer = Answer("one", 0.0, "story")
    answer.parts = [text]
    conversation.turns = [Turn("Once", answer, [])]
    return conversation


def _kept_one(root: Path) -> None:
    _nothing(root)
    Archive(root / DATA).keep(_conversation("old"))


def _keep(root: Path) -> None:
    Archive(root / DATA).keep(_conversation("new"))


def _delete(root: Path) -> None:
    Archive(root / DATA).delete(_conversation("old"))


def _conversations(root: Path) -> Any:
    return [one.turns[0].answer.text for one in Archive(root / DATA).all()]


def _choose(root: Path) -> None:
    SettingsFile(root / DATA).change(privacy="strict", theme="nord")


def _chosen(root: Path) -> Any:
    return SettingsFile(root / DATA).settings


CASES = (
    Case("first start", _with_story, lambda root: _run(root, *NODE), _keys, _are_whole, _are_kept_and_counted),
    Case("keys", _nothing, _make_keys, _keys, _are_whole, _are_kept),
    Case("import", _with_checkpoint, _import, _models, _is_there_or_not),
    Case("import --thin", _with_checkpoint, _import_thin, _checks, lambda old, new, dead: 0 <= dead <= new),
    Case("transfer of a unit", _nothing, _fetch, _fetched),
    Case("join", _with_identity, _start_in_it, _swarm),
    Case("pair", _with_identity, _pair, _paired),
    Case("name", _with_identity, lambda root: _run(root, "name", "desk"), _names),
    Case("ban", _with_identity, lambda root: _run(root, "ban", samples.ME.peer_id), _access),
    Case("allow", _with_identity, lambda root: _run(root, "allow", samples.ME.peer_id), _access),
    Case("allow --only", _with_identity, lambda root: _run(root, "allow", "--only"), _access),
    Case(
        "record's number",
        _nothing,
        _count,
        _seq,
        lambda old, new, dead: old <= dead <= new,
        lambda dead, final: final == dead + SEQS,
    ),
    Case("guards", _first_guards, _write_guards, lambda root: read_book(root / DATA / "guards.json")),
    Case("lend", _nothing, _lend, _lent),
    Case("published", _nothing, _publish, _published),
    Case("key add", _nothing, _key, _key_names),
    Case("conversation", _kept_one, _keep, _conversations),
    Case("conversation deleted", _kept_one, _delete, _conversations),
    Case("interface", _nothing, _choose, _chosen),
)
