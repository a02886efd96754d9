"""GGUF files: what is read is what transformers reads, the same file gives the same model, the rest is refused."""

from __future__ import annotations

import contextlib
import resource
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_gguf import Type, write_gguf
from safetensors.numpy import load_file, save_file
from test_model_checkpoints import write_checkpoint

from node.errors import CorruptModelError, ModelError, ModelNotFoundError, UnsupportedModelError
from node.model.config import RopeConfig
from node.store.gguf.checkpoint import GgufCheckpoint
from node.store.gguf.config import read_gguf_config
from node.store.gguf.header import BLOCK_TYPES, read_header
from node.store.gguf.tensors import GgufTensors
from node.store.hf.checkpoint import open_checkpoint
from node.store.hf.reference import ReferenceModel
from node.store.importer import import_checkpoint
from node.store.library import Library

EVEN = {"intermediate_size": 64}
"""Rows of whole blocks."""
# transformers reads no query_pre_attn_scalar of a Gemma file, and takes 256.
GEMMA = {"head_dim": 256, "sliding_window": 7}
# transformers reads no head_dim of a Qwen3 file, and takes 128.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "num_key_value_heads": 4},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 128, "max_window_layers": 2},
    "gemma2": {**GEMMA, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]},
    "gemma3": {
        **GEMMA,
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "rope_theta": 1e6,
        "num_hidden_layers": 6,
    },
}
PAD = {"pad_token_id": 0}
PHI = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": 0}
PHI_FACTORS = {"short_factor": [1.0, 1.1, 1.25], "long_factor": [1.0, 3.3, 9.0]}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
# What transformers reads nothing of in a file: compared with the checkpoint that the file was made of.
UNREAD: dict[str, dict[str, Any]] = {
    "llama-yarn": {"rope_scaling": YARN},
    "qwen2-yarn": {**FAMILIES["qwen2"], "rope_scaling": {**YARN, "beta_fast": 20.0}},
    "phi3-window": {**PHI, "sliding_window": 7, "partial_rotary_factor": 0.5},
    "phi3-longrope": {
        **PHI,
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 32,
        "rope_scaling": {"rope_type": "longrope", **PHI_FACTORS},
    },
    "smollm3": {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "num_hidden_layers": 5, **PAD},
    "olmo2": {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]},
    "granite": {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "attention_multiplier": 0.25,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "logits_scaling": 0.5,
        "attention_bias": True,
        "mlp_bias": True,
    },
}
FAMILIES["phi3"] = PHI
IDS = [1, *range(5, 30)]


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", {**EVEN, **FAMILIES[request.param]})


def test_a_file_says_the_same_as_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    opened = GgufCheckpoint(write_gguf(folder, tmp_path / "model.gguf"))
    original = open_checkpoint(folder)
    assert opened.config == original.config
    np.testing.assert_array_equal(ReferenceModel(opened).logits(IDS), ReferenceModel(original).logits(IDS))


@pytest.mark.parametrize("name", UNREAD)
def test_a_file_says_the_same_as_the_checkpoint_that_transformers_reads(name: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = write_checkpoint(tmp_path / "checkpoint", {**EVEN, **UNREAD[name]})
    opened = GgufCheckpoint(write_gguf(folder, tmp_path / "model.gguf"))
    assert opened.config == open_checkpoint(folder).config
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})  # or transformers refuses it
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for ids in (IDS, [*IDS, *IDS[1:]]):
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0].numpy()
        assert np.abs(expected).max() > 1.0
        np.testing.assert_allclose(ReferenceModel(opened).logits(ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1])
def test_logits_are_those_of_transformers(folder: Path, tmp_path: Path, kind: Type) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    write_gguf(folder, tmp_path / "model.gguf", kind)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager", pad_token_id=0
    )
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    logits = ReferenceModel(GgufCheckpoint(tmp_path / "model.gguf")).logits(IDS)
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_the_same_file_gives_the_same_model(folder: Path, tmp_path: Path) -> None:
    path = write_gguf(folder, tmp_path / "some model.gguf", Type.Q8_0)
    first = import_checkpoint(path, tmp_path / "one")
    again = import_checkpoint(path, tmp_path / "two")
    assert first.model_id == again.model_id
    library = Library(tmp_path / "one")
    assert library.resolve(path).model_id == first.model_id
    assert library.import_folder(path).name == "some-model"


@pytest.mark.parametrize("number", BLOCK_TYPES)
def test_rows_are_those_of_the_whole_tensor(tmp_path: Path, number: int) -> None:
    kind, generator = Type(number), np.random.default_rng(number)
    weights, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    assert (weights, num_bytes) == (BLOCK_TYPES[number].weights, BLOCK_TYPES[number].num_bytes)
    stored = generator.integers(
        0, 60, (6, 512 // weights * num_bytes), dtype=np.uint8
    )  # no scale of them is infinite
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    if kind in (Type.F32, Type.F16):
        writer.add_tensor("some", stored.view(np.float32 if kind is Type.F32 else np.float16))
    else:
        writer.add_tensor("some", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = GgufTensors(tmp_path / "one.gguf", read_header(tmp_path / "one.gguf").tensors)
    whole = gguf.dequantize(stored, kind).reshape(6, -1)
    np.testing.assert_array_equal(tensors.rows("some", slice(2, 5)), whole[2:5])
    np.testing.assert_array_equal(tensors.rows("some", np.array([4, 0])), whole[[4, 0]])


def test_a_split_file_is_one_model(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", EVEN)
    whole = write_gguf(folder, tmp_path / "whole.gguf")
    header = read_header(whole)
    for number, wanted in enumerate((0, 1), 1):
        writer = gguf.GGUFWriter(tmp_path / f"parts-{number:05}-of-00002.gguf", "llama")
        for field in gguf.GGUFReader(whole).fields.values() if number == 1 else ():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                kinds = field.types
                writer.add_key_value(field.name, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
        tensors = GgufTensors(whole, header.tensors)
        for index, (name, place) in enumerate(header.tensors.items()):
            if index % 2 == wanted:
                writer.add_tensor(name, tensors.rows(name, slice(None)).reshape(place.shape))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    joined = GgufCheckpoint(tmp_path / "parts-00002-of-00002.gguf")
    np.testing.assert_array_equal(
        ReferenceModel(joined).logits(IDS), ReferenceModel(GgufCheckpoint(whole)).logits(IDS)
    )
    (tmp_path / "parts-00001-of-00002.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match=r"parts-00001-of-00002\.gguf is missing"):
        GgufCheckpoint(tmp_path / "parts-00002-of-00002.gguf")


# --- what is refused


UINT, FLOAT, STRING = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.STRING


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"llama.expert_count": (8, UINT)}, "a mixture of experts"),
        ({"llama.attention.sliding_window": (64, UINT)}, "a sliding window"),
        ({"llama.rope.dimension_count": (4, UINT)}, "only a part of each head is rotated"),
        ({"llama.rope.scaling.type": ("dynamic", STRING)}, "its rope type is 'dynamic'"),
        ({"llama.rope.scaling.type": ("yarn", STRING)}, "factor = None"),
        ({"llama.attention.value_length": (4, UINT)}, "of different sizes"),
        ({"llama.embedding_length": (0, UINT)}, "embedding_length is 0"),
        ({"llama.feed_forward_length": (128, UINT)}, "has the shape"),
        ({"tokenizer.ggml.model": ("rwkv", STRING)}, "tokenizer is 'rwkv'"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write_gguf(write_checkpoint(tmp_path / "checkpoint", EVEN), tmp_path / "model.gguf")
    content = path.read_bytes()
    for key, (value, kind) in changes.items():
        content = with_entry(content, key, value, int(kind))
    path.write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        import_checkpoint(path, tmp_path / "models")
    assert not (tmp_path / "models").exists(), "nothing is written"


def with_entry(content: bytes, key: str, value: int | float | str, kind: int) -> bytes:
    """A file with one entry put in front of its metadata, and the one of that key, if it has one, renamed."""
    packed = struct.pack("<Q", len(key)) + key.encode()
    content = content.replace(packed, struct.pack("<Q", len(key)) + b"x" * len(key))
    count = struct.unpack_from("<Q", content, 16)[0]
    entry = packed + struct.pack("<I", kind)
    if isinstance(value, str):
        entry += struct.pack("<Q", len(value)) + value.encode()
    else:
        entry += struct.pack("<f" if isinstance(value, float) else "<I", value)
    entry += b"" if len(entry) % 32 == 0 else filling(32 - len(entry) % 32)
    added = 1 if len(entry) == len(packed) + 4 + 4 else 2
    return content[:16] + struct.pack("<Q", count + added) + entry + content[24:]


def filling(num_bytes: int) -> bytes:
    """An entry that fills up to the alignment of tensors: a string of so many bytes in all."""
    num_bytes += 32 if num_bytes < 26 else 0
    text = b"y" * (num_bytes - 8 - 1 - 4 - 8)
    return struct.pack("<Q", 1) + b"f" + struct.pack("<I", 8) + struct.pack("<Q", len(text)) + text


def hostile(counts: tuple[int, int], body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, *counts) + body


KEY = struct.pack("<Q", 1) + b"k"
TENSOR = struct.pack("<Q", 1) + b"t" + struct.pack("<IQ", 1, 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a valid GGUF file"),
        (b"GGML" + bytes(100), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (hostile((1 << 60, 0)), "has 1152921504606846976 tensors"),
        (hostile((0, 1 << 60)), "has 1152921504606846976 entries"),
        (hostile((0, 1), struct.pack("<Q", 1 << 60)), "a string has 1152921504606846976 bytes"),
        (hostile((0, 1), KEY + struct.pack("<IIQ", 9, 8, 10**9)), "has 1000000000 items"),
        (hostile((0, 1), KEY + struct.pack("<IIQ", 9, 0, 4_000_000)), "truncated"),
        (hostile((0, 1), KEY + struct.pack("<IIQ", 9, 9, 4)), "unknown type 9"),
        (hostile((0, 1), KEY + struct.pack("<I", 77)), "unknown type 77"),
        (hostile((0, 2), 2 * (KEY + struct.pack("<IB", 0, 1))), "twice"),
        (hostile((1, 0), TENSOR + struct.pack("<IQ", 999, 0)), "ggml's type 999"),
        (hostile((1, 0), TENSOR + struct.pack("<IQ", 0, 1 << 60)), "ends beyond the end of the file"),
        (hostile((1, 0), TENSOR + struct.pack("<IQ", 0, 0)), "ends beyond the end of the file"),
        (
            hostile((2, 0), TENSOR + struct.pack("<IQ", 0, 0) + TENSOR + struct.pack("<IQ", 0, 128)) + bytes(512),
            "twice",
        ),
        (
            hostile(
                (2, 0), TENSOR + struct.pack("<IQ", 0, 0) + TENSOR.replace(b"t", b"u") + struct.pack("<IQ", 0, 96)
            )
            + bytes(512),
            "overlaps another",
        ),
        (
            hostile((1, 0), struct.pack("<Q", 1) + b"t" + struct.pack("<IQQ", 2, 1 << 40, 1 << 40) + bytes(12)),
            "has the shape",
        ),
    ],
)
def test_a_hostile_header_is_refused_at_once(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    before_kib, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ModelError, match=reason) as refused:
        read_header(tmp_path / "bad.gguf")
    assert time.process_time() - started < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 << 10
    assert "\n" not in str(refused.value)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_that_is_cut_or_changed_is_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = write_gguf(write_checkpoint(folder / "checkpoint", EVEN), folder / "model.gguf", Type.Q8_0)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, min(4000, len(content) - 1)))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CorruptModelError, UnsupportedModelError):
        GgufCheckpoint(path)


@pytest.mark.parametrize("factor", [8.0, 32.0, 5.0])
def test_rotary_factors_are_those_of_llama_3_or_refused(tmp_path: Path, factor: float) -> None:
    """The factors as llama.cpp's converter computes them (convert_hf_to_gguf.py, generate_extra_tensors)."""
    config = {**EVEN, "hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 500000.0}
    path = write_gguf(write_checkpoint(tmp_path / "checkpoint", config), tmp_path / "model.gguf")
    factors = []
    for frequency in 1.0 / 500000.0 ** (np.arange(0, 128, 2) / 128):
        length = 2 * np.pi / frequency
        smooth = min(max((8192 / length - 1) / (4 - 1), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    opened, tensors = GgufCheckpoint(path), {"rope_freqs.weight": np.array(factors, np.float32)}
    places = {**read_header(path).tensors}
    metadata = read_header(path).metadata
    assert opened.config.rope.kind == "default"
    if factor == 5.0:
        with pytest.raises(UnsupportedModelError, match="not those of Llama 3"):
            read_gguf_config(metadata, places, tensors, "x")
    else:
        rope = read_gguf_config(metadata, places, tensors, "x").rope
        assert rope == RopeConfig("llama3", 500000.0, factor, 1.0, 4.0, 8192)
