"""Manifests that were tampered with, names, and what a user may type to mean a model."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from test_model_checkpoints import write_checkpoint

from node.errors import ConfigError, CorruptModelError, ModelNotFoundError, PromptError
from node.store import library as library_module
from node.store.importer import ImportProgress, import_checkpoint
from node.store.library import Library
from node.store.manifest import Manifest, model_id_of
from node.store.names import Names, name_from_folder
from node.store.partial import PartialModel, partial_path
from node.store.stored import StoredModel
from node.store.unit_file import load_unit, unit_path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imported")
    return import_checkpoint(write_checkpoint(root / "source"), root / "models").path


def test_manifest_survives_its_encoding(imported: Path) -> None:
    content = (imported / "manifest.cbor").read_bytes()
    manifest = Manifest.decode(content, "here")
    assert manifest.encode() == content and model_id_of(content) == imported.name
    assert len(manifest.units) == 9 and manifest.units[-1].kind == "head"


def set_item(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_item("kekahyde", value=2),
        set_item("extra", value=1),
        set_item("config", value=[]),
        set_item("config", "hidden_size", value=64),
        set_item("config", "hidden_size", value="32"),
        set_item("config", "rope", "theta", value=10000),
        set_item("config", "rope", "kind", value="yarn"),
        set_item("config", "num_layers", value=1 << 60),
        set_item("config", "num_kv_heads", value=0),
        set_item("config", "head_dim", value=-8),
        set_item("config", "rms_norm_eps", value=float("nan")),
        set_item("units", value=[]),
        set_item("units", 0, 4, value=b"short"),
        set_item("units", 0, 2, value=1 << 40),
        set_item("units", 0, value=7),
        set_item("files", "../evil", value=bytes(32)),
        set_item("files", "tokenizer.json", value="text"),
        set_item("files", value={}),
    ],
)
def test_tampered_manifests_are_refused(imported: Path, change: Callable[[Any], None]) -> None:
    content = cbor2.loads((imported / "manifest.cbor").read_bytes())
    change(content)
    with pytest.raises(CorruptModelError, match="here cannot be used"):
        Manifest.decode(cbor2.dumps(content, canonical=True), "here")


def test_other_bytes_of_the_same_manifest_are_refused(imported: Path) -> None:
    content = (imported / "manifest.cbor").read_bytes()
    for data in (
        content + b"\x00",
        content[:-1],
        cbor2.dumps(cbor2.loads(content)),
        b"",
        b"\xa0",
        b"\xd9\xd9\xf7\xa0",
    ):
        if data != content:
            with pytest.raises(CorruptModelError, match="here cannot be used"):
                Manifest.decode(data, "here")


def test_a_folder_whose_name_is_not_its_hash_is_refused(imported: Path, tmp_path: Path) -> None:
    other = tmp_path / ("0" * 64)
    other.mkdir()
    with pytest.raises(ModelNotFoundError, match="no model at"):
        StoredModel(other)
    (other / "manifest.cbor").write_bytes((imported / "manifest.cbor").read_bytes())
    with pytest.raises(CorruptModelError, match=imported.name):
        StoredModel(other)


def test_a_manifest_of_another_model_is_none_of_this(imported: Path, tmp_path: Path) -> None:
    content = (imported / "manifest.cbor").read_bytes()
    assert PartialModel.create(tmp_path, imported.name, content).model_id == imported.name
    with pytest.raises(CorruptModelError, match="wrong hash"):
        PartialModel.create(tmp_path, "0" * 64, content)
    partial_path(tmp_path, "0" * 64).mkdir()
    (partial_path(tmp_path, "0" * 64) / "manifest.cbor").write_bytes(content)
    assert PartialModel.find(tmp_path, "0" * 64) is None


def test_weights_are_hashed_again_before_a_peer_is_blamed(tmp_path: Path) -> None:
    """Also where size and time of the file say that nothing has changed."""
    model = StoredModel(import_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "models").path)
    ref = model.unit(0, "qkv").ref
    path = unit_path(model.path / "units", ref.sha256)
    model.confirm(ref)
    before = path.stat()
    with path.open("r+b") as file:
        file.write(bytes([path.read_bytes()[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(CorruptModelError, match="has changed since it was imported"):
        model.confirm(ref)


@pytest.mark.parametrize("change", [lambda content: content[:-8], lambda content: content + bytes(8)])
def test_a_unit_of_another_size_is_not_even_hashed(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    model = StoredModel(import_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "models").path)
    ref = model.units[0]
    path = unit_path(model.path / "units", ref.sha256)
    path.write_bytes(change(path.read_bytes()))
    for verify in (True, False):
        with pytest.raises(CorruptModelError, match="bytes instead of"):
            load_unit(model.path / "units", ref, verify=verify)


def test_damaged_client_files_are_refused(tmp_path: Path) -> None:
    path = import_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "models").path
    for name in ("client.safetensors", "tokenizer.json"):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[:-1] + b"!")
        with pytest.raises(CorruptModelError, match=f"{name} is damaged"):
            StoredModel(path)
        (path / name).write_bytes(whole)
    StoredModel(path)


def test_model_for_use(imported: Path) -> None:
    model = StoredModel(imported, "tiny")
    assert model.name == "tiny" and model.config.num_layers == 2 and model.chat_template is None
    assert model.tokenizer().decode(model.tokenizer().encode("AB", add_special=False)) == "AB"
    assert model.generation_config == {} and model.embedding_rows([]).shape == (0, 32)
    with pytest.raises(PromptError, match="outside"):
        model.embedding_rows([-1])


def test_everything_that_means_a_model(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "Tiny Model (v1)")
    done: list[ImportProgress] = []
    library = Library(tmp_path / "models", done.append)
    model = library.resolve(source)
    assert model.name == "tiny-model-v1" and len(done) == 9
    for reference in (model.name, model.model_id, model.model_id[:8], str(source), model.path):
        assert library.resolve(reference).model_id == model.model_id
    assert library.resolve(model.name) is model and len(done) == 9, "imported once"
    assert Library(tmp_path / "models").resolve(source).model_id == model.model_id
    (source / "config.json").write_text((source / "config.json").read_text() + " ")
    assert library.resolve(source).model_id == model.model_id and len(done) == 18, "a changed folder is read again"
    summary = library.list()[0]
    assert summary.names == ("tiny-model-v1",) and summary.model_type == "llama" and summary.problem is None
    assert summary.num_weights == sum(ref.num_outputs * ref.num_inputs for ref in model.units)


def test_what_means_no_model(tmp_path: Path) -> None:
    library = Library(tmp_path / "models")
    assert list(library.list()) == []
    model = library.resolve(write_checkpoint(tmp_path / "tiny"))
    for reference in ("other", model.model_id[:7], "0" * 64, "", "/no/where"):
        with pytest.raises(ModelNotFoundError, match="tiny"):
            library.resolve(reference)
    (model.path / "manifest.cbor").write_bytes(b"x")
    assert "is damaged" in str(library.list()[0].problem)


def test_the_built_in_model_is_imported_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = write_checkpoint(tmp_path / "story")
    monkeypatch.setattr(library_module, "BUILT_IN_FOLDER", built_in)
    done: list[ImportProgress] = []
    model = Library(tmp_path / "models", done.append).resolve("story")
    assert model.name == "story" and len(done) == 9
    assert Library(tmp_path / "models", done.append).resolve("story").model_id == model.model_id and len(done) == 9
    time.sleep(0.01)
    write_checkpoint(built_in, seed=1)  # a newer package
    newer = Library(tmp_path / "models").resolve("story")
    assert newer.model_id != model.model_id
    Names(tmp_path / "models").add("story", model.model_id)  # the user's own choice
    assert Library(tmp_path / "models").resolve("story").model_id == model.model_id


def test_names(tmp_path: Path) -> None:
    names = Names(tmp_path)
    for bad in ("", "A", "-x", "a/b", "a" * 65, "..", "é"):
        with pytest.raises(ConfigError, match="not a model name"):
            names.add(bad, "0" * 64)
    names.add("a.b_c-1", "0" * 64)
    assert names.all() == {"a.b_c-1": "0" * 64}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
    assert name_from_folder(tmp_path / "Qwen3 0.6B!") == "qwen3-0.6b"
    for content in ("{", "[]", "{}", json.dumps({"names": {"a": "b"}, "sources": {}})):
        (tmp_path / "names.json").write_text(content)
        with pytest.raises(CorruptModelError, match=r"names\.json"):
            names.all()
