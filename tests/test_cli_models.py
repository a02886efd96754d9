"""`models show` and `models rm`: what is known of a model, and how it goes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.store.importer import import_checkpoint
from node.store.library import BUILT_IN_FOLDER
from node.store.partial import partial_path
from scripts.harness import forked
from scripts.harness.forked import ForkedProcess
from scripts.harness.programs import environment


def call(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node", "models", *arguments, "--data-dir", str(data_dir)]
    return forked.run(command)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """With one model of two names."""
    folder = tmp_path / "data" / "models"
    for name in ("fox", "wolf"):
        import_checkpoint(BUILT_IN_FOLDER, folder, name)
    return tmp_path / "data"


def test_a_model_is_shown_and_deleted(data_dir: Path) -> None:
    facts = json.loads(call(data_dir, "show", "fox", "--json").stdout)
    assert facts["names"] == ["fox", "wolf"] and facts["disk_bytes"] > facts["weights_bytes"] > 0
    assert "context_length" in call(data_dir, "show", facts["model_id"][:10]).stdout
    removed = call(data_dir, "rm", "wolf", "--json")
    assert json.loads(removed.stdout) == {"model_id": facts["model_id"], "freed_bytes": facts["disk_bytes"]}
    assert json.loads(call(data_dir, "--json").stdout)["models"] == []
    assert not [path for path in (data_dir / "models").rglob("*") if path.is_file() and path.stat().st_size > 4096]


def test_what_is_not_here_is_said(data_dir: Path) -> None:
    for command in ("show", "rm"):
        refused = call(data_dir, command, "bear")
        assert refused.returncode == 1 and "the models are: fox, wolf" in refused.stderr


def test_a_thin_model_goes_with_its_secret_checks(data_dir: Path) -> None:
    model_id = json.loads(call(data_dir, "show", "fox", "--json").stdout)["model_id"]
    whole = data_dir / "models" / model_id
    part = partial_path(data_dir / "models", model_id)
    part.parent.mkdir(exist_ok=True)
    shutil.copytree(whole, part)
    (part / "checks").mkdir()
    (part / "checks" / "secret").write_text("x")
    assert call(data_dir, "rm", "fox").returncode == 0
    assert not whole.exists() and not part.exists()


def test_a_model_of_a_running_node_stays(data_dir: Path) -> None:
    command = [sys.executable, "-m", "node", "--headless", "--json", "--data-dir", str(data_dir), "--model", "fox"]
    node = ForkedProcess(command, environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert node.stdout is not None and node.stdout.readline()
    try:
        refused = call(data_dir, "rm", "fox")
        assert refused.returncode == 1 and "a node runs on" in refused.stderr
        assert call(data_dir, "show", "fox").returncode == 0
    finally:
        node.terminate()
        node.wait(20)
        node.stdout.close()


def test_only_a_whole_model_is_put_on_the_swarm(data_dir: Path) -> None:
    model_id = json.loads(call(data_dir, "show", "fox", "--json").stdout)["model_id"]
    published = call(data_dir, "publish", "fox")
    assert published.returncode == 0 and "as soon as a node runs here" in published.stderr
    assert call(data_dir, "unpublish", "fox").returncode == 0
    part = partial_path(data_dir / "models", model_id)
    part.parent.mkdir(exist_ok=True)
    (data_dir / "models" / model_id).rename(part)
    refused = call(data_dir, "publish", model_id[:12])
    assert refused.returncode == 1 and "only a part" in refused.stderr and f"pull {model_id}" in refused.stderr
    assert json.loads((data_dir / "published.json").read_text()) == {"models": []}
