"""The tensors of a checkpoint's text model: of one with a vision tower, those of its language part alone."""

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
"""How `transformers` before 5, and since, names what belongs to the language part of a larger model."""
_OTHER_PARTS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


class StoredTensor(Struct, frozen=True):
    """Where a tensor is stored, under which name."""

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
    """Tensors under the names that a model of text alone has for them."""
    if not any(name.startswith(tuple(_PREFIXES)) for name in files):
        return {name: StoredTensor(file, name) for name, file in files.items()}
    kept = {name: file for name, file in files.items() if not name.startswith(_OTHER_PARTS)}
    return {_text_name(name): StoredTensor(file, name) for name, file in kept.items()}


def _text_name(name: str) -> str:
    for prefix, plain in _PREFIXES.items():
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name
