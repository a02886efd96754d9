"""The tensors of a checkpoint's text model; if it has a vision tower, only those of its language part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from node.store.tensor_file import TensorFile
from protocol.linear.field import Floats

_PREFIXES = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
}
"""Prefixes of the language part of a larger model, in `transformers` before version 5 and since."""
_OTHER_PARTS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


class StoredTensor(Struct, frozen=True):
    """The file and the name under which a tensor is stored."""

    file: TensorFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.tensors[self.name].shape

    @property
    def dtype(self) -> str:
        return self.file.tensors[self.name].dtype

    def rows(self, start: int, stop: int) -> Floats:
        """Rows `start` to `stop`, widened exactly to float32."""
        return self.file.rows(self.name, start, stop)

    def raw(self) -> npt.NDArray[np.generic]:
        """The stored bytes; see `TensorFile.raw`."""
        return self.file.raw(self.name)


def text_tensors(files: dict[str, TensorFile]) -> dict[str, StoredTensor]:
    """The tensors under the names of a text-only model."""
    if not any(name.startswith(tuple(_PREFIXES)) for name in files):
        return {name: StoredTensor(file, name) for name, file in files.items()}
    kept = {name: file for name, file in files.items() if not name.startswith(_OTHER_PARTS)}
    return {_text_name(name): StoredTensor(file, name) for name, file in kept.items()}


def _text_name(name: str) -> str:
    for prefix, plain in _PREFIXES.items():
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name
