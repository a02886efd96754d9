"""Importing: the same bytes everywhere, whole or not there, and mended when it is done again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from test_model_checkpoints import TINY, random_tensors, write_byte_tokenizer, write_checkpoint

from node.errors import ConfigError, CorruptModelError, ModelNotFoundError, UnsupportedModelError
from node.store.hf.checkpoint import open_checkpoint
from node.store.importer import ImportProgress, import_checkpoint, remove_stale_imports
from node.store.library import Library
from node.store.names import Names
from node.store.quantize import quantize_rows, squared_row_norms
from node.store.stored import StoredModel
from node.store.unit_file import load_unit, unit_path

GOLDEN_UNITS = "0990bb0c74ab"
"""Beginning of the SHA-256 over the unit hashes of the model that `golden` writes: the same on every machine."""
GOLDEN_CLIENT = "f46885d07f3e"
"""The same of its client.safetensors."""


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rounding_rule() -> None:
    rows = np.array(
        [[127, 63.5, -0.5, 1.5], [2.0**-101, -(2.0**-102), 0, 0], [0, 0, 0, 0], [-254, 5, 3, 1]], dtype=np.float32
    )
    weights, scales = quantize_rows(rows)
    np.testing.assert_array_equal(weights, [[127, 64, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0], [-127, 2, 2, 0]])
    np.testing.assert_array_equal(scales, np.array([1, 1, 1, 2], dtype=np.float32))
    np.testing.assert_array_equal(squared_row_norms(weights), [127**2 + 64**2 + 4, 0, 0, 127**2 + 8])
    for bad in (np.inf, np.nan):
        with pytest.raises(UnsupportedModelError, match="not a number"):
            quantize_rows(np.array([[1, bad]], dtype=np.float32))


def test_integers_stay_in_range_for_any_scale() -> None:
    rows = np.random.default_rng(0).standard_normal((400, 33)).astype(np.float32)
    rows *= np.float32(10.0) ** np.random.default_rng(1).integers(-28, 36, (400, 1)).astype(np.float32)
    weights, scales = quantize_rows(rows)
    assert np.abs(weights.astype(int)).max() == 127 and (scales > 0).all() and np.isfinite(scales).all()
    np.testing.assert_allclose(weights * scales[:, None].astype(np.float64), rows, atol=scales.max(), rtol=0)


def test_units_hold_the_rows_in_order(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", {"attention_bias": True})
    model = StoredModel(import_checkpoint(source, tmp_path / "models").path)
    checkpoint = open_checkpoint(source)
    for kind, names in (("qkv", ("self_attn.q", "self_attn.k", "self_attn.v")), ("gate_up", ("mlp.gate", "mlp.up"))):
        fused = np.concatenate([checkpoint.tensor(f"model.layers.1.{name}_proj.weight") for name in names])
        weights, scales = quantize_rows(fused)
        unit = model.unit(1, kind)  # type: ignore[arg-type]
        np.testing.assert_array_equal(unit.weights, weights)
        np.testing.assert_array_equal(unit.scales, scales)
        assert unit.max_row_norm == pytest.approx(np.linalg.norm(weights.astype(float), axis=1).max(), rel=1e-12)
    biases = [checkpoint.tensor(f"model.layers.1.self_attn.{name}_proj.bias") for name in "qkv"]
    np.testing.assert_array_equal(model.unit(1, "qkv").bias, np.concatenate(biases))
    assert model.unit(1, "gate_up").bias is None and model.unit(None, "head").ref.layer is None
    assert model.unit_by_hash(model.unit(0, "o").ref.sha256) is model.unit(0, "o")
    assert model.unit_by_hash(bytes(32)) is None
    np.testing.assert_array_equal(
        model.embedding_rows([3, 79, 3]), checkpoint.tensor(checkpoint.embedding)[[3, 79, 3]]
    )
    np.testing.assert_array_equal(
        model.norm(0, "mlp"), checkpoint.tensor("model.layers.0.post_attention_layernorm.weight")
    )
    with pytest.raises(ValueError, match="read-only"):
        model.unit(0, "o").weights[0, 0] = 1


def golden(folder: Path) -> Path:
    """A checkpoint whose numbers do not depend on a random generator of numpy's."""
    write_checkpoint(folder)
    tensors = random_tensors(TINY)
    for name, tensor in tensors.items():
        bits = np.frombuffer(hashlib.shake_256(name.encode()).digest(tensor.size * 2), dtype="<i2")
        tensors[name] = (bits.reshape(tensor.shape) / np.float32(65536)).astype(np.float16)
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").unlink()
    write_byte_tokenizer(folder)
    return folder


def test_the_same_checkpoint_has_the_same_bytes_and_the_very_id(tmp_path: Path) -> None:
    source = golden(tmp_path / "source")
    first = import_checkpoint(source, tmp_path / "a", name="one")
    second = import_checkpoint(source, tmp_path / "b", name="two")
    assert first.model_id == second.model_id and not first.already_present
    assert snapshot(first.path) == snapshot(second.path)
    ours = {path for path in snapshot(first.path) if not path.startswith("units/")}
    assert ours == {"manifest.cbor", "client.safetensors", "tokenizer.json"}
    for path, content in snapshot(first.path / "units").items():
        assert path == hashlib.sha256(content).hexdigest() + ".w8"
    model = StoredModel(first.path)
    assert model.model_id_bytes == hashlib.sha256((first.path / "manifest.cbor").read_bytes()).digest()
    with safe_open(first.path / "client.safetensors", "numpy") as client:
        assert (
            client.get_slice("embedding").get_dtype() == "F16" and client.get_slice("final_norm").get_dtype() == "F32"
        )
    units = b"".join(ref.sha256 for ref in model.units)
    assert hashlib.sha256(units).hexdigest()[:12] == GOLDEN_UNITS, "the W8 format or rule has changed"
    client_hash = model.manifest.files["client.safetensors"].hex()
    assert client_hash[:12] == GOLDEN_CLIENT, "the format of the client's file has changed"


def test_shards_and_dtypes_of_equal_values_give_equal_units(tmp_path: Path) -> None:
    source = golden(tmp_path / "source")
    once = StoredModel(import_checkpoint(source, tmp_path / "models").path)
    widened = {name: tensor.astype(np.float32) for name, tensor in _tensors(source).items()}
    save_file(widened, source / "model.safetensors")
    again = StoredModel(import_checkpoint(source, tmp_path / "models").path)
    assert once.units == again.units and once.model_id != again.model_id
    np.testing.assert_array_equal(once.embedding_rows([1, 7]), again.embedding_rows([1, 7]))


def _tensors(folder: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    with safe_open(folder / "model.safetensors", "numpy") as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}


def test_importing_again_only_adds_the_name_and_mends(tmp_path: Path) -> None:
    source, models = write_checkpoint(tmp_path / "source"), tmp_path / "models"
    first = import_checkpoint(source, models, name="first")
    before = snapshot(first.path)
    inode = (first.path / "manifest.cbor").stat().st_ino
    victim = sorted((first.path / "units").iterdir())[0]
    victim.write_bytes(b"damaged")
    (first.path / "tokenizer.json").unlink()
    again = import_checkpoint(source, models, name="second")
    assert again.already_present and again.model_id == first.model_id
    assert snapshot(first.path) == before and (first.path / "manifest.cbor").stat().st_ino == inode
    assert Names(models).all() == {"first": first.model_id, "second": first.model_id}


KILLED = """
import os, sys
from pathlib import Path
from node.store.importer import import_checkpoint

def die(progress):
    if progress.done_units == 5:
        os._exit(9)

import_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), "killed", die)
"""


def test_a_killed_import_leaves_no_half_model(tmp_path: Path) -> None:
    source, models = write_checkpoint(tmp_path / "source"), tmp_path / "models"
    root = Path(__file__).parents[1]
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(models)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ).returncode
    assert code == 9
    (left,) = models.glob(".import-*")
    assert list((left / "units").glob("*.w8"))
    library = Library(models)
    assert list(library.list()) == [] and Names(models).all() == {}
    imported = import_checkpoint(source, models, "whole")
    assert not left.exists() and list(models.glob(".import-*")) == []
    assert library.resolve("whole").model_id == imported.model_id


def test_an_import_that_is_stopped_cleans_up_and_one_at_work_is_left_alone(tmp_path: Path) -> None:
    source, models = write_checkpoint(tmp_path / "source"), tmp_path / "models"
    removed = []

    def stop(progress: ImportProgress) -> None:
        removed.extend(remove_stale_imports(models))
        if progress.done_units == 3:
            assert progress.unit == "0.gate_up" and progress.total_units == 9
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(source, models, None, stop)
    assert removed == [] and [path.name for path in models.iterdir()] == [".lock"]


def test_bad_sources_leave_nothing_behind(tmp_path: Path) -> None:
    models = tmp_path / "models"
    source = write_checkpoint(tmp_path / "source")
    tensors = random_tensors(TINY)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="not a number"):
        import_checkpoint(source, models)
    assert not any(path.is_dir() for path in models.iterdir())
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match="tokenizer"):
        import_checkpoint(source, models)
    with pytest.raises(ConfigError, match="not a model name"):
        import_checkpoint(source, models, "Bad Name")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="models cannot be written to"):
        import_checkpoint(source, tmp_path / "file" / "models")


def test_damaged_units_are_named(tmp_path: Path) -> None:
    imported = import_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "models")
    ref = StoredModel(imported.path).units[2]
    path = unit_path(imported.path / "units", ref.sha256)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptModelError, match=f"{ref.sha256.hex()}.*import the model again"):
        StoredModel(imported.path).unit(ref.layer, ref.kind)
    path.write_bytes(whole[:-1])
    with pytest.raises(CorruptModelError, match="bytes instead of"):
        StoredModel(imported.path).unit(ref.layer, ref.kind)
    path.unlink()
    with pytest.raises(CorruptModelError, match="cannot be read"):
        StoredModel(imported.path).unit(ref.layer, ref.kind)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (0, b"\x80", "-128"),
        (1, b"\x05", "row norms"),
        (-8, b"\xff\xff\xff\xff\xff\xff\xff\xff", "impossible row norm"),
        ("scales", b"\x00\x00\xc0\x7f", "scale"),
    ],
)
def test_units_that_no_import_writes_are_refused(where: int | str, value: bytes, reason: str, tmp_path: Path) -> None:
    imported = import_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "models")
    ref = StoredModel(imported.path).units[0]
    path = unit_path(imported.path / "units", ref.sha256)
    content = bytearray(path.read_bytes())
    if content[1] == 5:
        content[1] = 6
    start = ref.num_outputs * ref.num_inputs if where == "scales" else int(where) % len(content)
    content[start : start + len(value)] = value
    forged = type(ref)(ref.layer, ref.kind, ref.num_outputs, ref.num_inputs, hashlib.sha256(content).digest())
    unit_path(tmp_path, forged.sha256).write_bytes(content)
    with pytest.raises(CorruptModelError, match=reason):
        load_unit(tmp_path, forged)
