"""`pull ORG/NAME`: real processes against a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hub_server
import pytest
from huggingface_hub import constants
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint

from node.errors import ConfigError, KekahydeError, UnsupportedModelError
from node.hub.pull import HubPull
from node.hub.reference import HubReference, parse_reference
from node.hub.selection import HubFile, small_files, weight_files
from node.store.importer import import_checkpoint
from node.store.library import Library
from scripts.harness import forked

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 300,
}
BLOCK_BYTES = 10 << 20
"""What the hub's library writes at a time."""


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """acme/Tiny-1, the same as private/tiny and gated/tiny, and one with pickles."""
    folder = tmp_path_factory.mktemp("repos")
    checkpoint = write_checkpoint(folder / "acme" / "Tiny-1", SIZES)
    write_byte_tokenizer(checkpoint)
    (checkpoint / "pytorch_model.bin").write_bytes(b"never")
    (checkpoint / "README.md").write_text("never")
    for org in ("private", "gated"):
        shutil.copytree(checkpoint, folder / org / "tiny")
    (folder / "acme" / "pickled").mkdir()
    (folder / "acme" / "pickled" / "pytorch_model.bin").write_bytes(b"never")
    (folder / "acme" / "pickled" / "config.json").write_text("{}")
    return folder


class Pulls:
    """A hub that runs, and pulls from it."""

    def __init__(self, url: str, log: Path, folder: Path) -> None:
        self.url, self.log, self.folder = url, log, folder

    def command(self, model: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "node", "pull", model, "--data-dir", str(self.folder / "data"), *options]

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, "HF_ENDPOINT": self.url, "HF_HOME": str(self.folder / "hf"), "HF_TOKEN": "", **more}

    def run(self, model: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = self.command(model, "--json", *options)
        return forked.run(command, self.env(**more), timeout_s=100)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def weights(self) -> list[dict[str, Any]]:
        return [r for r in self.requests if r["path"].endswith("model.safetensors") and r["method"] == "GET"]


@contextmanager
def hub(repos: Path, folder: Path, breaks: int = 0, pace_s: float = 0.0) -> Iterator[Pulls]:
    log = folder / "requests"
    command = [sys.executable, hub_server.__file__, str(repos), str(log), str(breaks), str(pace_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Pulls(process.stdout.readline().strip(), log, folder)
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def size_of(repos: Path) -> int:
    return (repos / "acme" / "Tiny-1" / "model.safetensors").stat().st_size


def test_a_pull_is_the_import_of_what_is_needed_and_goes_on_after_a_break(repos: Path, tmp_path: Path) -> None:
    expected = import_checkpoint(repos / "acme" / "Tiny-1", tmp_path / "other").model_id
    with hub(repos, tmp_path, breaks=1) as pulls:
        first = pulls.run("acme/Tiny-1")
        assert first.returncode == 0, first.stderr
        assert json.loads(first.stdout) == {"name": "tiny-1", "model_id": expected}
        asked = {request["path"].rpartition("/")[2] for request in pulls.requests}
        assert not asked & {"pytorch_model.bin", "README.md"}
        broken, rest = pulls.weights()
        assert BLOCK_BYTES < broken["sent"] < size_of(repos)
        assert rest["range"] == f"bytes={BLOCK_BYTES}-" and rest["sent"] == size_of(repos) - BLOCK_BYTES
        before = len(pulls.weights())
        again = pulls.run(f"acme/Tiny-1@{hub_server.COMMIT}", "--name", "pinned")
        assert json.loads(again.stdout)["model_id"] == expected, again.stderr
        offline = pulls.run("acme/Tiny-1", HF_HUB_OFFLINE="1")
        assert offline.returncode == 0 and json.loads(offline.stdout)["model_id"] == expected, offline.stderr
        assert len(pulls.weights()) == before, "the cache has them"


def test_a_pull_that_was_killed_goes_on_where_it_was(repos: Path, tmp_path: Path) -> None:
    with hub(repos, tmp_path, pace_s=0.01) as pulls:
        process = subprocess.Popen(
            pulls.command("acme/Tiny-1"), env=pulls.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not (parts := [p for p in tmp_path.rglob("*.incomplete") if p.stat().st_size > 1 << 20]):
            assert process.poll() is None and time.monotonic() < deadline, pulls.requests
            time.sleep(0.01)
        process.kill()
        process.wait()
        there = parts[0].stat().st_size
        assert there < size_of(repos)
        again = pulls.run("acme/Tiny-1")
        assert again.returncode == 0, again.stderr
        last = pulls.weights()[-1]
        assert last["range"] == f"bytes={there}-" and last["sent"] == size_of(repos) - there


@pytest.fixture(scope="module")
def served(repos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulls]:
    with hub(repos, tmp_path_factory.mktemp("served")) as pulls:
        yield pulls


def refused(model: str, folder: Path) -> str:
    """What a pull in this process says that cannot be done."""
    with pytest.raises(KekahydeError) as caught:
        HubPull(parse_reference(model), Library(folder), lambda progress: None).run()
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("acme/nothing", "has no model acme/nothing"),
        ("private/tiny", "HF_TOKEN"),
        ("gated/tiny", "accept them at"),
        ("acme/Tiny-1@v9", "no revision 'v9'"),
        ("acme/pickled", "only safetensors"),
    ],
)
def test_what_cannot_be_had_says_why_and_what_next(
    served: Pulls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, says: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "")
    assert says in refused(model, tmp_path)


def test_no_room_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("node.hub.pull.SPARE_BYTES", usage.total)
    pulling = HubPull(parse_reference("acme/Tiny-1"), Library(tmp_path), lambda progress: None)
    with pytest.raises(ConfigError, match="HF_HOME and --data-dir"):
        pulling._check_room([HubFile("model.safetensors", 1)], [HubFile("model.safetensors", 1)])


def test_a_token_opens_what_is_private_and_the_failure_of_a_command_is_one_line(served: Pulls) -> None:
    result = served.run("private/tiny", HF_TOKEN=hub_server.TOKEN)
    assert result.returncode == 0, result.stderr
    refusal = served.run("private/tiny")
    assert refusal.returncode == 1 and refusal.stderr.splitlines()[-1].startswith("error: "), refusal.stderr
    assert "Traceback" not in refusal.stderr


def test_no_hub_and_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "cannot be reached" in refused("acme/Tiny-1", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("acme/Tiny-1", tmp_path)


def test_references() -> None:
    assert parse_reference("a/b") == HubReference("a/b") and not parse_reference("a/b@v1").is_pinned
    assert parse_reference(f"a/b@{hub_server.COMMIT}").is_pinned
    for wrong in ("", "a", "a/b/c", "../b", "a/..", "a/b@", "a b/c", "https://x/y"):
        with pytest.raises(ConfigError, match="ORG/NAME"):
            parse_reference(wrong)


def test_the_index_names_the_shards_and_nothing_else_is_taken() -> None:
    names = ["config.json", "tokenizer.json", "model.safetensors.index.json", "a.safetensors", "b.safetensors"]
    files = [HubFile(name, 1) for name in [*names, "consolidated.safetensors", "chat_template.jinja", "x.bin"]]
    small = {file.name for file in small_files(files, "a/b")}
    assert small == {"config.json", "tokenizer.json", "model.safetensors.index.json", "chat_template.jinja"}
    assert [file.name for file in weight_files(files, {"b.safetensors", "a.safetensors"}, "a/b")] == names[3:]
    for shards in ({"c.safetensors"}, {"../x.safetensors"}):
        with pytest.raises(UnsupportedModelError, match="index"):
            weight_files(files, shards, "a/b")
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        small_files([HubFile("model.safetensors", 1), HubFile("config.json", 1)], "a/b")


def test_models_are_found_by_a_part_of_their_name(served: Pulls, tmp_path: Path) -> None:
    def search(text: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "node", "models", "search", text, *options]
        return forked.run(command, served.env(**more))

    told = json.loads(search("tiny", "--json").stdout)
    assert told["short_names"] == {"tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}
    found = {model["repo"]: model for model in told["models"]}
    assert set(found) == {"acme/Tiny-1", "private/tiny", "gated/tiny"}
    assert found["gated/tiny"]["gated"] and found["acme/Tiny-1"]["num_weights"] == 7_000_000
    shown = search("tiny").stdout
    assert "tinyllama" in shown and "accept its terms first" in shown and "7 M weights" in shown
    assert "no model is called 'bear'" in search("bear").stderr
    lost = search("smollm", HF_ENDPOINT="http://127.0.0.1:9")
    assert lost.returncode == 1 and "cannot be asked" in lost.stderr and "smollm2" in lost.stdout
    assert "HF_HUB_OFFLINE" in search("tiny", HF_HUB_OFFLINE="1").stderr
