"""`client.safetensors`: the float part of a model, which never leaves the client.

    embedding                [V, D]  F32, F16 or BF16 as in the checkpoint; F32 if that has blocks of integers
    final_norm               [D]     F32, like all tensors below
    layers.<i>.norm.<name>           attention and mlp [D]; q and k [d] where the model has them
    layers.<i>.bias.<kind>   [N]     biases of a unit's fused rows, where the model has them

The file's hash is a part of the model's id, but the safetensors library may write other bytes in another version. So
the bytes are defined here: the tensors in the order above (layer by layer, norms before biases), the header as JSON
without spaces, filled up with spaces so that the tensors start at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from msgspec import Struct

from node.model.config import LAYER_KINDS
from node.store.files import sync
from node.store.hf.layout import FINAL_NORM, norm_names, projections
from node.store.weight_source import WeightSource
from protocol.linear.field import Floats

EMBEDDING = "embedding"
HEADER_ALIGNMENT = 64
BLOCK_ROWS = 4096
"""Number of embedding rows that are copied together."""

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class _Entry(Struct, frozen=True):
    """One tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[bytes]]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def norm_key(layer: int, name: str) -> str:
    """Name of a layer's norm in the file."""
    return f"layers.{layer}.norm.{name}"


def bias_key(layer: int, kind: str) -> str:
    """Name of a unit's bias in the file."""
    return f"layers.{layer}.bias.{kind}"


def write_client_file(path: Path, checkpoint: WeightSource) -> None:
    """Writes the float part of a checkpoint; never more than a block of it is in memory."""
    entries = list(_entries(checkpoint))
    header: dict[str, object] = {}
    offset = 0
    for entry in entries:
        offsets = [offset, offset := offset + entry.num_bytes]
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
    with path.open("wb") as file:
        _write_header(file, header)
        for entry in entries:
            for block in entry.blocks():
                file.write(block)
        file.flush()
        sync(file.fileno())


def _write_header(file: BinaryIO, header: dict[str, object]) -> None:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % HEADER_ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)


def _entries(checkpoint: WeightSource) -> Iterator[_Entry]:
    yield _embedding_entry(checkpoint)
    config = checkpoint.config
    yield _float_entry("final_norm", checkpoint.tensor(FINAL_NORM))
    for layer in range(config.num_layers):
        for name, (tensor, _) in norm_names(config, layer).items():
            yield _float_entry(norm_key(layer, name), checkpoint.tensor(tensor))
        for kind in LAYER_KINDS:
            if config.has_bias(kind):
                parts = [checkpoint.tensor(f"{prefix}.bias") for prefix, _ in projections(config, layer, kind)]
                yield _float_entry(bias_key(layer, kind), np.concatenate(parts))


def _embedding_entry(checkpoint: WeightSource) -> _Entry:
    shape = checkpoint.config.vocab_size, checkpoint.config.hidden_size
    return _Entry(EMBEDDING, checkpoint.embedding_dtype, shape, lambda: checkpoint.embedding_blocks(BLOCK_ROWS))


def _float_entry(name: str, values: Floats) -> _Entry:
    content = values.astype("<f4").tobytes()
    return _Entry(name, "F32", values.shape, lambda: iter([content]))
