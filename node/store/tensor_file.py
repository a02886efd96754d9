"""One safetensors file, memory-mapped, with bfloat16, which numpy does not support.

The safetensors library reads and checks the header. This module only maps the bytes that the header describes,
because the library's numpy front end refuses bfloat16. It copies only what is asked for, and unpickles nothing.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from safetensors import SafetensorError, safe_open

from node.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from protocol.linear.field import Floats

_STORAGE: dict[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_HEADER_LENGTH = struct.Struct("<Q")


class TensorInfo(Struct, frozen=True):
    """The place of a tensor in its file."""

    dtype: str
    """The name in the header: F32, F16, BF16, or another that cannot be read."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int


class TensorFile:
    """The tensors of one safetensors file.

    Raises:
        ModelNotFoundError: the file does not exist.
        CorruptModelError: it is not a safetensors file, or is truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.tensors = _read_header(path)
            self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        except FileNotFoundError as exc:
            raise ModelNotFoundError(f"{path} is missing; fetch the model again") from exc
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as exc:
            raise CorruptModelError(f"{path} is not a valid safetensors file ({exc}); fetch the model again") from exc
        if any(info.offset + info.num_bytes > self._bytes.size for info in self.tensors.values()):
            raise CorruptModelError(f"{path} is truncated; fetch the model again")

    def raw(self, name: str) -> npt.NDArray[np.generic]:
        """The stored bytes of a tensor as a read-only view: f4, f2, or u2 for bfloat16.

        Raises:
            UnsupportedModelError: the tensor has another dtype.
        """
        info = self.tensors[name]
        if info.dtype not in _STORAGE:
            raise UnsupportedModelError(
                f"{self.path}: tensor {name} is {info.dtype}; only F32, F16 and BF16 weights are supported"
            )
        flat = self._bytes[info.offset : info.offset + info.num_bytes].view(_STORAGE[info.dtype])
        return np.asarray(flat.reshape(info.shape))

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor, widened exactly to float32."""
        return widen(self.raw(name)[start:stop], self.tensors[name].dtype)


def widen(stored: npt.NDArray[np.generic], dtype: str) -> Floats:
    """A float32 copy of stored values; float32 holds every f16 and bf16 value, so nothing is rounded."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32)


def _read_header(path: Path) -> dict[str, TensorInfo]:
    """The header as the safetensors library checked it; only the offsets are read here."""
    with safe_open(path, framework="numpy") as checked:
        described = {}
        for name in checked.keys():  # noqa: SIM118 - not a mapping
            part = checked.get_slice(name)
            described[name] = (str(part.get_dtype()), tuple(int(size) for size in part.get_shape()))
    with path.open("rb") as file:
        (length,) = _HEADER_LENGTH.unpack(file.read(_HEADER_LENGTH.size))
        header = json.loads(file.read(length))
    data_start = _HEADER_LENGTH.size + length
    return {name: _info(header[name]["data_offsets"], data_start, *about) for name, about in described.items()}


def _info(offsets: list[int], data_start: int, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    begin, end = offsets
    if dtype in _STORAGE and end - begin != math.prod(shape) * _STORAGE[dtype].itemsize:
        raise ValueError("a tensor's size does not match its shape")
    return TensorInfo(dtype, shape, data_start + begin, end - begin)
