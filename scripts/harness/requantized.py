"""A GGUF file with every matrix in Q8_0: what another program computes with when it is measured beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

SKIPPED = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type"}
"""Written by the writer itself, or of the source's own quantization."""


def write_q8_0(source: Path, target: Path) -> Path:
    """The same model and metadata; tensors of one dimension stay in float32."""
    reader = GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = GGUFWriter(target, architecture)
    for name, known in reader.fields.items():
        if name not in SKIPPED:
            kind = known.types[0]
            sub_type = known.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, known.contents(), kind, sub_type)
    for tensor in reader.tensors:
        values: Any = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values.astype("float32"))
            continue
        packed = gguf.quants.quantize(values, GGMLQuantizationType.Q8_0)
        writer.add_tensor(tensor.name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
