"""Rows of the tensors of a GGUF file, widened to float32 a few at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from node.store.gguf.header import TensorPlace
from node.store.tensor_file import widen
from protocol.linear.field import Floats

_PLAIN: dict[str, np.dtype[np.generic]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class GgufTensors:
    """The tensors of one file, memory-mapped. Their places must have been checked against the file's size."""

    def __init__(self, path: Path, tensors: dict[str, TensorPlace]) -> None:
        self.tensors = tensors
        self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")

    def rows(self, name: str, wanted: slice | npt.NDArray[np.intp]) -> Floats:
        """Rows of a matrix, or items of a vector, as float32, as ggml dequantizes them."""
        stored = self.stored(name)[wanted]
        return _widened(np.ascontiguousarray(stored), self.tensors[name])

    def stored(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor: `[rows, bytes of a row]`; for a vector `[items, bytes of an item]`."""
        place = self.tensors[name]
        flat = self._bytes[place.offset : place.offset + place.num_bytes]
        return flat.reshape(place.shape[0], -1)


def _widened(stored: npt.NDArray[np.uint8], place: TensorPlace) -> Floats:
    if place.type.name in _PLAIN:
        values = widen(np.asarray(stored.view(_PLAIN[place.type.name])), place.type.name)
    else:
        from gguf import GGMLQuantizationType, dequantize  # only an import of such a file needs it

        values = dequantize(stored, GGMLQuantizationType[place.type.name])
    return values.reshape(-1) if len(place.shape) == 1 else values
