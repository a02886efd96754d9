"""Borrowed weights are used only if they are those of the manifest, whoever or whatever brought others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_parts import KERNELS, identity
from test_model_checkpoints import write_checkpoint
from test_store_thin import swapped
from waiting import until

from node.serving.hosting import HostedModels
from node.store.importer import import_checkpoint
from node.store.stored import StoredModel
from node.store.unit_file import unit_path
from node.transfer import borrowed as borrowed_module
from node.transfer.borrowed import BorrowedUnits
from node.transfer.disk import BlobDisk
from node.transfer.surroundings import Surroundings
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from protocol.transfer.actions import Wanted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    root = tmp_path_factory.mktemp("borrowed")
    return StoredModel(import_checkpoint(write_checkpoint(root / "source"), root / "models").path)


@pytest.fixture
def borrowing(model: StoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Borrows units of which the download brings what `spoil` makes of the right bytes."""
    stack = ExitStack()

    def begin(spoil: Callable[[bytes], bytes]) -> BorrowedUnits:
        class Brings:
            def __init__(self, secure: SecureContext, job: Any, disk: BlobDisk, *_rest: Any, **_options: Any) -> None:
                self._disk = disk

            def run(self, wanted: Sequence[Wanted]) -> None:
                for each in wanted:
                    right = unit_path(model.path / "units", each.sha256).read_bytes()
                    for path in self._disk._destination(each.sha256):
                        path.write_bytes(spoil(right))

        monkeypatch.setattr(borrowed_module, "Download", Brings)
        secure = stack.enter_context(SecureContext(identity(1), lambda curve_key: False, None))
        around = Surroundings(secure, PeerRegistry(), HostedModels([]), KERNELS, tmp_path, lambda peer, why: None)
        units = BorrowedUnits(around, model.model_id_bytes, model.manifest, 1 << 30)
        stack.callback(units.close)
        return units

    with stack:
        yield begin


def test_the_right_weights_are_used(borrowing: Any, model: StoredModel) -> None:
    units, ref = borrowing(lambda content: content), model.units[0]
    units.ask(ref)
    until(lambda: units.weights(ref) is not None, "they are here")
    np.testing.assert_array_equal(units.weights(ref), model.unit_by_hash(ref.sha256).weights)


@pytest.mark.parametrize("spoil", [swapped, lambda content: content[:-1], lambda content: bytes(len(content))])
def test_other_bytes_are_not_used_whatever_the_transfer_says(borrowing: Any, model: StoredModel, spoil: Any) -> None:
    units, ref = borrowing(spoil), model.units[0]
    units.ask(ref)
    until(lambda: units.trouble is not None, "it is said that they are not right")
    assert units.weights(ref) is None and units.num_bytes == 0
