"""A short form of `scripts/killed_writes`: a process that is killed at a write leaves nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.harness.programs import environment, program
from scripts.killing.shim import with_shim

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the library that kills is compiled")
QUICK = ("keys", "join", "pair", "record's number", "conversation deleted")


def test_a_process_that_is_killed_at_any_write_leaves_the_old_state_or_the_new() -> None:
    cases = ["--every", "2", *(part for name in QUICK for part in ("--case", name))]
    ended = subprocess.run(
        [*program("scripts.killing.killed_writes"), *cases], env=environment(), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert ended.stdout.count("| 0 |\n") == len(QUICK)


CARELESS = """
import os, sys, tempfile
from pathlib import Path
from scripts.killing import killed_writes
from scripts.killing.cases import Case, DATA

def prepare(root):
    (root / DATA).mkdir()
    (root / DATA / "list").write_text("a")

def work(root):
    (root / DATA / "list").write_text("ab")

case = Case("careless", prepare, work, lambda root: (root / DATA / "list").read_text())
outcome = killed_writes.Prover(case, Path(tempfile.mkdtemp())).prove(1)
sys.exit(0 if outcome.faults and outcome.deaths == 2 * outcome.calls > 0 else 1)
"""


def test_a_file_that_is_written_in_place_is_found() -> None:
    assert with_shim([sys.executable, "-P", "-c", CARELESS], environment()) == 0


def test_a_killed_process_leaves_no_secret_behind(tmp_path: Path) -> None:
    from node.paths import DataDir

    data = DataDir.open(tmp_path)
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine, left = (tmp_path / f".identity.key.{process.pid}.ab.tmp" for process in (running, ended))
    for path in (mine, left):
        path.write_bytes(bytes(32))
    data.remove_left_behind()
    assert mine.exists() and not left.exists()
    running.communicate(b"\n")
