"""`launch`: programs of others are started with the address of the node that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.harness import forked
from scripts.harness.forked import ForkedProcess
from scripts.harness.programs import environment

NODE = [sys.executable, "-m", "node"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A node, and its address for programs."""
    data_dir = tmp_path_factory.mktemp("launch")
    command = [*NODE, "--headless", "--json", "--data-dir", str(data_dir), "--threads", "1"]
    node = ForkedProcess(command, environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert node.stdout is not None
    yield data_dir, json.loads(node.stdout.readline())["gateway"]
    node.terminate()
    assert node.wait(20) == 0
    node.stdout.close()


def call(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**environment(), **({} if path is None else {"PATH": path})}
    return forked.run([*NODE, *arguments], env)


def test_a_program_is_started_with_the_address(running: tuple[Path, str], tmp_path: Path) -> None:
    data_dir, url = running
    fake = tmp_path / "claude"
    fake.write_text('#!/bin/sh\necho "$ANTHROPIC_BASE_URL $ANTHROPIC_MODEL $@"\n')
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    short = call("launch", "--data-dir", str(data_dir), "claude", "-p", "hi", path=path)
    assert short.returncode == 1 and "story reads 512" in short.stderr and "--model" in short.stderr
    chosen = "launch", "--data-dir", str(data_dir), "--model", "long"
    started = call(*chosen, "claude", "-p", "hi", path=path)
    assert started.stdout == f"{url} long -p hi\n" and started.returncode == 0
    printed = call(*chosen, "--print", "claude")
    assert f"ANTHROPIC_BASE_URL={url} " in printed.stdout and printed.stdout.endswith(" claude\n")


@pytest.mark.parametrize("program", ["continue", "llm", "ollama"])
def test_settings_are_printed(running: tuple[Path, str], program: str) -> None:
    data_dir, url = running
    printed = call("launch", "--data-dir", str(data_dir), program)
    assert url in printed.stdout and printed.returncode == 0


def test_what_is_missing_is_said(running: tuple[Path, str], tmp_path: Path) -> None:
    data_dir, _ = running
    missing = call("launch", "--data-dir", str(data_dir), "--model", "long", "aider", path=str(tmp_path))
    assert missing.returncode == 1 and "uv tool install aider-chat" in missing.stderr
    alone = call("launch", "--data-dir", str(tmp_path / "nobody"), "aider")
    assert alone.returncode == 1 and "no node runs" in alone.stderr
    assert call("launch", "notepad").returncode == 2


def test_doctor_names_the_address(running: tuple[Path, str]) -> None:
    data_dir, url = running
    assert f"programs reach this node at {url}" in call("doctor", "--data-dir", str(data_dir)).stdout
