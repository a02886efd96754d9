"""A model of which this device holds some layers and their float part, and computes them for others.

<models>/.partial/<model id>/manifest.cbor, client.safetensors, units/<sha256>.w8
"""

from __future__ import annotations

from pathlib import Path

from node.model.unit import UnitRef
from node.store.manifest import CLIENT_FILE, UNITS_FOLDER
from node.store.stored import StoredModel
from node.store.unit_file import unit_path


class HeldLayers(StoredModel):
    """It has no tokenizer: it can compute layers and nothing else. Safe to share between threads.

    Raises:
        ModelNotFoundError: there is no manifest.
        CorruptModelError: the manifest or the float part has the wrong hash, or is not there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, files=(CLIENT_FILE,))

    def holds(self, ref: UnitRef) -> bool:
        return unit_path(self.path / UNITS_FOLDER, ref.sha256).exists()
