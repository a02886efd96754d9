"""A data directory that was copied to a second device: both run, somebody says so, and the one that stays is used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from node.gateway.client.client import call_node
from scripts.harness.swarm import NodeProcess

PROGRAM = [sys.executable, "-m", "node"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "KEKAHYDE_SWARM_KEY"}

pytestmark = pytest.mark.swarm


@contextmanager
def node(data_dir: Path) -> Iterator[NodeProcess]:
    """A node that gets swarm and identity from its directory."""
    data_dir.mkdir(exist_ok=True)
    with (data_dir / "stderr.txt").open("a") as narration:
        command = [*PROGRAM, "--headless", "--json", "--no-gateway", "--threads", "1", "--data-dir", str(data_dir)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=narration, text=True, env=ENVIRONMENT)
    started = NodeProcess(process, data_dir)
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


def call(data_dir: Path, *arguments: str) -> str:
    command = [*PROGRAM, *arguments, "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT).stdout


def identity_findings(data_dir: Path) -> list[dict[str, Any]]:
    return [each for each in call_node(data_dir, "doctor")["findings"] if each["check"] == "identity"]


def mode_of_an_answer(data_dir: Path) -> str:
    answer = call(data_dir, "run", "--json", "--privacy", "strict", "--max-tokens", "2", "Once upon a time")
    return str(json.loads(answer.splitlines()[-1])["mode"])


@pytest.mark.long
def test_two_devices_with_one_identity_are_found_and_the_one_that_stays_is_used(tmp_path: Path) -> None:
    home, original, copy = tmp_path / "home", tmp_path / "original", tmp_path / "copy"
    with ExitStack() as running:
        running.enter_context(node(home))
        call(original, "join", call(home, "invite", "--no-qr").strip().splitlines()[-1])
        with node(original) as first:
            until(lambda: mode_of_an_answer(home) == "strict", "the peer is used")
            peer_id = first.peer_id
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns("control.*"))
        running.enter_context(node(original))
        with node(copy) as second:
            assert second.peer_id == peer_id
            until(lambda: identity_findings(home), "the doctor of a third device says so")
            (finding,) = identity_findings(home)
            assert (
                peer_id in finding["text"] and finding["level"] == "broken" and "--data-dir" in finding["next_step"]
            )
            until(lambda: identity_findings(original) or identity_findings(copy), "one of the two says so")
            said = (original / "stderr.txt").read_text() + (copy / "stderr.txt").read_text()
            assert "another device has the identity of this node" in said
        until(lambda: mode_of_an_answer(home) == "strict", "the one that stays is used")
        assert not identity_findings(home)
