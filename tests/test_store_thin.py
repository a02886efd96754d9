"""Thin models: what stays of a unit that went by, how it is kept secret, and what is refused."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_parts import KERNELS, make_unit
from test_model_checkpoints import write_byte_tokenizer, write_checkpoint

from node.errors import CorruptModelError, ModelError
from node.model.unit import UnitRef
from node.planning.placement import FFN_LENT, Lend, kinds_not_kept
from node.store.check_file import check_bytes, check_path, has_check, read_check, write_check
from node.store.library import Library
from node.store.manifest import UNITS_FOLDER
from node.store.stored import StoredModel
from node.store.thin import CHECKS_FOLDER, ThinModel, reduce_unit
from node.store.unit_file import unit_path
from protocol.linear.verification import UnitCheck


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("thin") / "checkpoint", {"vocab_size": 300})
    write_byte_tokenizer(folder)
    return folder


def thin_library(models_dir: Path, lend: Lend = Lend.ALL) -> Library:
    lent = kinds_not_kept(True, lend)

    def reduce(folder: Path, ref: UnitRef) -> None:
        if ref.kind in lent:
            reduce_unit(folder, ref, KERNELS, secrets.token_bytes)

    return Library(models_dir, reduce=reduce)


@pytest.fixture
def thin(checkpoint: Path, tmp_path: Path) -> ThinModel:
    model = thin_library(tmp_path / "models").resolve(checkpoint)
    assert isinstance(model, ThinModel)
    return model


# --- the file of a check


@pytest.mark.parametrize("shape", [(7, 5), (512, 64), (1300, 33)])
def test_a_check_comes_back_as_it_was(tmp_path: Path, shape: tuple[int, int]) -> None:
    unit = make_unit(*shape)
    check = UnitCheck.of(unit.weights, KERNELS, secrets.token_bytes)
    write_check(tmp_path, unit, check)
    path = check_path(tmp_path, unit.ref.sha256)
    assert path.stat().st_size == check_bytes(unit.ref)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "whoever knows it can forge results"
    again, read = read_check(tmp_path, unit.ref)
    assert again.held is None and again.max_row_norm == unit.max_row_norm
    np.testing.assert_array_equal(again.scales, unit.scales)
    np.testing.assert_array_equal(read.vectors, check.vectors)
    np.testing.assert_array_equal(read.projections, check.projections)
    with pytest.raises(ModelError, match="are not here"):
        _ = again.weights


@pytest.mark.parametrize("spoil", ["bit", "short", "long", "other unit", "gone"])
def test_a_damaged_check_is_refused_and_removed(tmp_path: Path, spoil: str) -> None:
    unit, other = make_unit(64, 32), make_unit(64, 32, seed=2)
    write_check(tmp_path, unit, UnitCheck.of(unit.weights, KERNELS, secrets.token_bytes))
    path, ref = check_path(tmp_path, unit.ref.sha256), unit.ref
    content = bytearray(path.read_bytes())
    if spoil == "bit":
        content[len(content) // 2] ^= 1
    elif spoil == "short":
        content.pop()
    elif spoil == "long":
        content.append(0)
    elif spoil == "other unit":
        path, ref = check_path(tmp_path, other.ref.sha256), other.ref
    path.write_bytes(content)
    if spoil == "gone":
        path.unlink()
    with pytest.raises(CorruptModelError, match="pull the model again"):
        read_check(tmp_path, ref)
    assert not has_check(tmp_path, ref) and not path.exists()


# --- a unit goes by


def swapped(content: bytes) -> bytes:
    """The same but for two weights of a row, which trade places: shape, scales and norms are as they were."""
    weights = bytearray(content)
    place = next(index for index in range(1, len(content)) if content[index] != content[0])
    weights[0], weights[place] = content[place], content[0]
    return bytes(weights)


@pytest.mark.parametrize("spoil", [lambda content: bytes(len(content)), swapped, lambda content: content[:-1]])
def test_nothing_of_a_refused_unit_stays(
    thin: ThinModel, checkpoint: Path, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    ref = thin.units[0]
    whole = Library(tmp_path / "whole").resolve(checkpoint)
    check_path(thin.path / CHECKS_FOLDER, ref.sha256).unlink()
    path = unit_path(thin.path / UNITS_FOLDER, ref.sha256)
    path.write_bytes(spoil(unit_path(whole.path / UNITS_FOLDER, ref.sha256).read_bytes()))
    with pytest.raises(CorruptModelError):
        reduce_unit(thin.path, ref, KERNELS, secrets.token_bytes)
    assert not path.exists() and not has_check(thin.path / CHECKS_FOLDER, ref)


def test_two_checks_of_one_unit_differ(checkpoint: Path, thin: ThinModel, tmp_path: Path) -> None:
    other = thin_library(tmp_path / "other").resolve(checkpoint)
    first, second = thin.check_of(thin.units[0]), other.check_of(other.units[0])
    assert first is not None and second is not None
    assert not np.array_equal(first.vectors, second.vectors), "U is drawn, not derived"


# --- a thin model


def test_a_thin_model_is_the_whole_one_without_weights(checkpoint: Path, thin: ThinModel, tmp_path: Path) -> None:
    whole = Library(tmp_path / "whole").resolve(checkpoint)
    assert thin.model_id == whole.model_id and not thin.is_whole and whole.is_whole
    assert thin.held_bytes == 0 and whole.checks_bytes == 0
    assert thin.checks_bytes == sum(path.stat().st_size for path in (thin.path / CHECKS_FOLDER).iterdir())
    assert list((thin.path / UNITS_FOLDER).iterdir()) == []
    for ref in whole.units:
        full, part = whole.unit(ref.layer, ref.kind), thin.unit(ref.layer, ref.kind)
        assert part.held is None and part.max_row_norm == full.max_row_norm
        np.testing.assert_array_equal(part.scales, full.scales)
        check = thin.check_of(ref)
        assert check is not None and whole.check_of(ref) is None
        np.testing.assert_array_equal(
            check.projections[0], KERNELS.field_project(check.vectors[:, :512].copy(), full.weights[:512])
        )
    np.testing.assert_array_equal(thin.embedding_rows([1, 2]), whole.embedding_rows([1, 2]))


def test_what_is_not_lent_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    model = thin_library(tmp_path, Lend.FFN).resolve(checkpoint)
    assert {ref.kind for ref in model.units if model.holds(ref)} == {"qkv", "o", "head"}
    assert model.held_bytes == FFN_LENT.bytes_here(model.units)
    assert model.unit(0, "qkv").held is not None and model.unit(0, "down").held is None


def test_a_library_knows_whole_and_thin_models(checkpoint: Path, thin: ThinModel) -> None:
    library = Library(thin.path.parent.parent)
    assert library.has(thin.model_id)
    (summary,) = library.list()
    assert (summary.held_bytes, summary.checks_bytes) == (0, thin.checks_bytes)
    assert summary.weights_bytes == sum(ref.num_bytes for ref in thin.units)
    assert isinstance(library.open(thin.model_id), ThinModel)
    check_path(thin.path / CHECKS_FOLDER, thin.units[3].sha256).unlink()
    fresh = Library(thin.path.parent.parent)
    assert not fresh.has(thin.model_id) and fresh.list() == [], "not all of it has come"
    whole = fresh.resolve(checkpoint)
    assert type(whole) is StoredModel and fresh.has(thin.model_id)


def test_a_check_that_changed_is_found_before_a_peer_is_blamed(thin: ThinModel) -> None:
    ref = thin.units[0]
    thin.confirm(ref)
    path = check_path(thin.path / CHECKS_FOLDER, ref.sha256)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptModelError, match="damaged"):
        thin.confirm(ref)
