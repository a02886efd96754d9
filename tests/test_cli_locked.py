"""A data directory that another process uses: commands that would write its files are refused, and write nothing.

A node keeps in memory what it has read, as `run` does: what a second process wrote would be lost at its next write.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_parts import identity

from node.cli.main import cli
from node.errors import KekahydeError
from node.paths import DataDir
from node.store.importer import import_checkpoint
from node.swarm.credentials import Swarm, store_swarm
from protocol.finding.invitation import format_invitation
from protocol.link.admission import SwarmKey
from protocol.multiaddr import parse_multiaddr
from scripts.fuzzing.samples import ADDRESS, invitation
from scripts.fuzzing.tiny_model import write_checkpoint

PEER = identity(2).peer_id
WRITING = (
    ("--headless", "--json"),
    ("allow", "--only"),
    ("allow", PEER),
    ("ban", PEER),
    ("ban", PEER, "--remove"),
    ("invite", "--no-qr"),
    ("join", format_invitation(invitation())),
    ("lend", "--pause"),
    ("models", "publish", "tiny"),
    ("models", "rm", "tiny"),
    ("models", "unpublish", "tiny"),
    ("name", "desk"),
    ("name", PEER, "desk"),
    ("pair", PEER),
    ("unpair", PEER),
)
READING = (("ban", "--list"), ("allow", "--list"), ("id",), ("models",), ("key", "list"))


@pytest.fixture
def used(tmp_path: Path) -> Iterator[Path]:
    """A directory with keys and a model, whose lock another process holds. (`flock` is one for each open file.)"""
    directory = DataDir.open(tmp_path / "data")
    directory.identity()
    address = parse_multiaddr(f"{ADDRESS}/p2p/{PEER}")
    store_swarm(directory.path, Swarm(SwarmKey(bytes(range(32))), (address,), own_key=True))
    import_checkpoint(write_checkpoint(tmp_path / "checkpoint"), directory.models, "tiny")
    lock = directory.lock()
    assert lock is not None
    with lock:
        yield directory.path
    gc.unfreeze()  # a command freezes what it has loaded


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_commands_that_write_are_refused(used: Path) -> None:
    before = content(used)
    for words in WRITING:
        with pytest.raises(KekahydeError) as refused:
            cli.main([*words, "--data-dir", str(used)], standalone_mode=False, obj=[])
        assert str(used) in str(refused.value), f"{words}: {refused.value}"
        assert content(used) == before, f"{words} wrote something"


def test_commands_that_only_read_are_not(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in READING:
        cli.main([*words, "--data-dir", str(used)], standalone_mode=False, obj=[])
    assert "tiny" in capsys.readouterr().out
