"""GGUF files with every matrix in Q8_0: what another program computes with when it is measured beside this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from numpy.typing import NDArray

Tensors = Iterator[tuple[str, NDArray[np.float32]]]

OF_THE_SOURCE = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type"}
"""Written by the writer itself, or about the source's own quantization."""
SHAPES: dict[str, dict[str, int]] = {
    "1.1b": {
        "llama.block_count": 22,
        "llama.embedding_length": 2048,
        "llama.feed_forward_length": 5632,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 4,
        "llama.rope.dimension_count": 64,
    },
}
"""Sizes of models with random weights, which take everything else from a source: as TinyLlama."""


def write_q8_0(source: Path, target: Path) -> Path:
    """The same model and metadata; tensors of one dimension stay in float32."""
    reader = GGUFReader(source)
    tensors = ((one.name, gguf.quants.dequantize(one.data, one.tensor_type)) for one in reader.tensors)
    return _write(reader, {}, tensors, target)


def write_random(source: Path, target: Path, shape: str) -> Path:
    """A model of another shape with random weights, and the vocabulary of the source."""
    reader, sizes = GGUFReader(source), SHAPES[shape]
    vocabulary = int(reader.fields["llama.vocab_size"].contents())
    return _write(reader, sizes, _random_tensors(sizes, vocabulary), target)


def _random_tensors(sizes: Mapping[str, int], vocabulary: int) -> Tensors:
    hidden, inner = sizes["llama.embedding_length"], sizes["llama.feed_forward_length"]
    keys = sizes["llama.rope.dimension_count"] * sizes["llama.attention.head_count_kv"]
    rng = np.random.default_rng(1)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)

    yield "token_embd.weight", matrix(vocabulary, hidden)
    for block in range(sizes["llama.block_count"]):
        widths = {"attn_q": hidden, "attn_k": keys, "attn_v": keys, "attn_output": hidden}
        widths |= {"ffn_gate": inner, "ffn_up": inner}
        for name, rows in widths.items():
            yield f"blk.{block}.{name}.weight", matrix(rows, hidden)
        yield f"blk.{block}.ffn_down.weight", matrix(hidden, inner)
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{block}.{name}.weight", np.ones(hidden, np.float32)
    yield "output_norm.weight", np.ones(hidden, np.float32)


def _write(reader: GGUFReader, sizes: Mapping[str, int], tensors: Tensors, target: Path) -> Path:
    writer = GGUFWriter(target, str(reader.fields["general.architecture"].contents()), use_temp_file=True)
    for name, known in reader.fields.items():
        if name not in OF_THE_SOURCE:
            kind: Any = known.types[0]
            sub_type = known.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, sizes.get(name, known.contents()), kind, sub_type)
    for name, values in tensors:
        if values.ndim < 2:
            writer.add_tensor(name, values.astype(np.float32))
            continue
        packed = gguf.quants.quantize(values, GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
