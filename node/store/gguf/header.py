"""The header of a GGUF file: metadata and the places of its tensors. Counts and sizes are checked before their use.

ggml's docs/gguf.md describes the format; this reads versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from node.model.config import MAX_DIMENSION, MAX_LAYERS, MAX_VOCABULARY

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256 << 20
MAX_ENTRIES = 4096
"""Most metadata entries; real files have about 50."""
MAX_TENSORS = 16 * MAX_LAYERS + 16
MAX_ITEMS = 4 * MAX_VOCABULARY
"""Most items of all arrays together: tokens, their kinds, scores and merges."""
MAX_KEY_BYTES = 1 << 16
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16


class BlockType(Struct, frozen=True):
    """A type of stored weights: a block of `weights` weights takes `num_bytes` bytes."""

    name: str
    weights: int
    num_bytes: int


BLOCK_TYPES = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2),
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    30: BlockType("BF16", 1, 2),
}
"""The supported types, by ggml's number (ggml.h, enum ggml_type)."""

_ARRAY, _STRING, _BOOL = 9, 8, 7
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}


class TensorPlace(Struct, frozen=True):
    """The place of a tensor in its file."""

    name: str
    shape: tuple[int, ...]
    """Rows first, as in numpy."""
    type: BlockType
    offset: int
    """Bytes from the start of the file."""

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.weights * self.type.num_bytes

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


class Header(Struct, frozen=True):
    """What a file says about itself."""

    metadata: dict[str, Any]
    """Numbers, truth values, strings, and lists of them."""
    tensors: dict[str, TensorPlace]


def read_header(path: Path) -> Header:
    """Reads the header of a file.

    Raises:
        ModelNotFoundError: there is no such file.
        UnsupportedModelError: it has a version, or holds a type, that is not supported.
        CorruptModelError: it is not a GGUF file, is truncated, or contradicts itself.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).header()
    except FileNotFoundError as exc:
        raise ModelNotFoundError(f"{path} is missing; fetch the model again") from exc
    except (OSError, ValueError) as exc:
        raise CorruptModelError(f"{path} is not a valid GGUF file ({exc}); fetch the model again") from exc


class _Reader:
    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content = path, content
        self._at = 0
        self._items = 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("<I")
        if version not in VERSIONS:
            raise UnsupportedModelError(f"{self._path} is of GGUF version {version}, not 2 or 3; convert it again")
        num_tensors = self._count("tensors", MAX_TENSORS)
        num_entries = self._count("entries", MAX_ENTRIES)
        metadata: dict[str, Any] = {}
        for _ in range(num_entries):
            key = self._string(MAX_KEY_BYTES)
            if key in metadata:
                raise ValueError(f"it has {key} twice")
            metadata[key] = self._value(self._number("<I"))
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment % 8:
            raise ValueError(f"its alignment is {alignment}")
        described = [self._tensor() for _ in range(num_tensors)]
        start = -(-self._at // alignment) * alignment
        return Header(metadata, self._placed(described, start, alignment))

    def _tensor(self) -> tuple[str, tuple[int, ...], BlockType, int]:
        name, num_dimensions = self._string(MAX_KEY_BYTES), self._number("<I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"tensor {name} has {num_dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(num_dimensions))[::-1]
        number, offset = self._number("<I"), self._number("<Q")
        if number not in BLOCK_TYPES:
            known = ", ".join(kind.name for kind in BLOCK_TYPES.values())
            raise UnsupportedModelError(
                f"{self._path}: tensor {name} has ggml's type {number}, which is not supported; use a file of {known}"
            )
        kind = BLOCK_TYPES[number]
        if not all(0 < size <= max(MAX_DIMENSION, MAX_VOCABULARY) for size in shape) or shape[-1] % kind.weights:
            raise ValueError(f"tensor {name} has the shape {list(shape)}")
        return name, shape, kind, offset

    def _placed(
        self, described: list[tuple[str, tuple[int, ...], BlockType, int]], start: int, alignment: int
    ) -> dict[str, TensorPlace]:
        """The tensors with their places; raises ValueError if one ends beyond the file or overlaps another."""
        tensors: dict[str, TensorPlace] = {}
        end = start
        for name, shape, kind, offset in sorted(described, key=lambda tensor: tensor[3]):
            place = TensorPlace(name, shape, kind, start + offset)
            if name in tensors:
                raise ValueError(f"it has the tensor {name} twice")
            if offset % alignment or place.offset < end:
                raise ValueError(f"tensor {name} overlaps another")
            end = place.offset + place.num_bytes
            if end > len(self._content):
                raise ValueError(f"tensor {name} ends beyond the end of the file: it is truncated")
            tensors[name] = place
        return tensors

    # --- values

    def _value(self, kind: int) -> Any:
        if kind != _ARRAY:
            return self._reader_of(kind)()
        items, count = self._number("<I"), self._count("items", MAX_ITEMS)
        self._items += count
        if self._items > MAX_ITEMS:
            raise ValueError(f"its arrays have more than {MAX_ITEMS} items")
        if items in _NUMBERS:
            return self._numbers(_NUMBERS[items], count)
        read = self._reader_of(items)
        return [read() for _ in range(count)]

    def _reader_of(self, kind: int) -> Callable[[], Any]:
        if kind == _STRING:
            return lambda: self._string(MAX_HEADER_BYTES)
        if kind == _BOOL:
            return lambda: bool(self._take(1)[0])
        if kind not in _NUMBERS:
            raise ValueError(f"a value is of the unknown type {kind}")
        return lambda: self._number(_NUMBERS[kind])

    def _numbers(self, form: str, count: int) -> list[Any]:
        packed = f"<{count}{form[1]}"
        return list(struct.unpack(packed, self._take(struct.calcsize(packed))))

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return value

    def _count(self, what: str, limit: int) -> int:
        count: int = self._number("<Q")
        if count > limit:
            raise ValueError(f"it has {count} {what}; at most {limit} are read")
        return count

    def _string(self, limit: int) -> str:
        length = self._number("<Q")
        if length > limit:
            raise ValueError(f"a string has {length} bytes")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise ValueError("a string is not UTF-8") from exc

    def _take(self, num_bytes: int) -> bytes:
        end = self._at + num_bytes
        if end > min(len(self._content), MAX_HEADER_BYTES):
            raise ValueError("its header is truncated" if end > len(self._content) else "its header is too long")
        taken = self._content[self._at : end]
        self._at = end
        return taken
