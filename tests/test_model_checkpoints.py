"""What is opened and what is refused, each refusal one clear sentence before a weight is read.

`write_checkpoint` is the builder that other tests of the model and of the store use.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from node.errors import CorruptModelError, ModelError, ModelNotFoundError, UnsupportedModelError
from node.model.config import ModelConfig, RopeConfig
from node.store.hf.checkpoint import open_checkpoint
from node.store.hf.config import parse_config
from node.store.hf.layout import EMBEDDING, HEAD, tensor_shapes

TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
    "bos_token_id": 1,
}


def random_tensors(raw: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Random weights for a config.json, large enough that every part of the model matters."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(parse_config(raw, {}, "test")):
        values = generator.standard_normal(shape, dtype=np.float32)
        tensors[name] = values * np.float32(0.1) + np.float32(1.0) if "norm" in name else values * np.float32(0.25)
    return tensors


def write_checkpoint(folder: Path, overrides: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """A random checkpoint with byte-level tokenizer in `folder`."""
    raw = {**TINY, **(overrides or {})}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(random_tensors(raw, seed), folder / "model.safetensors")
    write_byte_tokenizer(folder)
    return folder


def write_byte_tokenizer(folder: Path) -> None:
    """A tokenizer of three special tokens, 69 characters and eight bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    words = ["<unk>", "<s>", "</s>", *map(chr, range(33, 102)), *(f"<0x{byte:02X}>" for byte in range(0xE2, 0xEA))]
    model = models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[:3]])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(folder / "tokenizer.json"))


GEMMA = {"model_type": "gemma3_text", "head_dim": 8}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
    ({"model_type": "mixtral"}, "mixture of experts"),
    ({"model_type": "qwen3_moe"}, "mixture of experts"),
    ({"num_local_experts": 8}, "mixture of experts"),
    ({"quantization_config": {"bits": 4}}, "quantized already"),
    ({"hidden_act": "gelu"}, "activation is 'gelu'"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "not a causal language model"),
    ({"head_dim": 7}, "odd"),
    ({"num_key_value_heads": 3}, "do not divide"),
    ({"hidden_size": "64"}, "hidden_size = '64'"),
    ({"hidden_size": True}, "hidden_size = True"),
    ({"vocab_size": 10**12}, "vocab_size"),
    ({"rms_norm_eps": 0}, "rms_norm_eps"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ({"attention_bias": "yes"}, "attention_bias"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type is 'dynamic'"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "factor"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": "x"}}, "beta_fast"),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 4}}, "no list of 4 numbers as long_factor"),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 3}}, "no list of 4 numbers as short_factor"),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1, 1, "x"]}}, "short_factor = 'x'"),
    ({"model_type": "phi3", "partial_rotary_factor": 0.4}, "0.4 rotates 3 of 8"),
    ({"model_type": "phi3", "partial_rotary_factor": 1.5}, "1.5 rotates 12 of 8"),
    ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differs between layers"),
    ({"partial_rotary_factor": 0.5}, "part of each head"),
    ({"model_type": "qwen2", "num_key_value_heads": None}, "num_key_value_heads"),
    ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2}, "layer_types"),
    ({"eos_token_id": ["a"]}, "eos_token_id"),
    ({"text_config": {"model_type": "llama"}}, "whose text part is not known to be a model by itself"),
    ({"model_type": "gemma3"}, "with a vision tower and without text_config"),
    ({"model_type": "gemma3", "text_config": {**TINY, "model_type": "gemma4"}}, "model_type is 'gemma4'"),
    ({"model_type": "mistral3", "text_config": {**TINY, "num_local_experts": 8}}, "mixture of experts"),
    ({"model_type": "qwen2_5_vl", "text_config": TINY, "vision_config": {}}, "it is a qwen2_5_vl, whose text part"),
    ({**GEMMA, "hidden_activation": "relu"}, "activation is 'relu'"),
    ({**GEMMA, "use_bidirectional_attention": True}, "tokens see those after them"),
    ({**GEMMA, "attn_logit_softcapping": 50.0}, "does not apply in Gemma 3"),
    ({**GEMMA, "layer_types": ["full_attention"]}, "for each of its 2 layers"),
    ({**GEMMA, "layer_types": ["full_attention", "chunked_attention"]}, "for each of its 2 layers"),
    ({**GEMMA, "rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope type is 'dynamic'"),
    ({"rope_scaling": ["linear"]}, "not a JSON object"),
    ({"model_type": "smollm3", "no_rope_layers": [1]}, "a 0 or a 1 for each of its 2 layers"),
    ({"model_type": "smollm3", "no_rope_layers": [1, 2]}, "a 0 or a 1 for each of its 2 layers"),
    ({"model_type": "granite", "residual_multiplier": 0}, "residual_multiplier = 0"),
]


@pytest.mark.parametrize(("overrides", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_unsupported_configurations_are_refused_before_loading(
    overrides: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**TINY, **overrides}))
    with pytest.raises(UnsupportedModelError, match=reason) as refusal:
        open_checkpoint(tmp_path)
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)


def test_both_ways_to_write_a_rotary_embedding_mean_the_same() -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "original_max_position_embeddings": 32, **scaling}}
    new = {**scaling, "rope_type": "llama3", "rope_theta": 5e5, "original_max_position_embeddings": 32}
    without = {key: value for key, value in TINY.items() if key != "rope_theta"}
    parsed = parse_config({**TINY, **old}, {}, "old")
    assert parsed == parse_config({**without, "rope_parameters": new}, {}, "new")
    assert parsed.rope.kind == "llama3" and parsed.rope.original_context_length == 32


def test_what_released_gemma_checkpoints_leave_out() -> None:
    """config.json of google/gemma-3-4b-it names no more of its text part than this."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106]}
    config = parse_config({**outer, "text_config": text, "vision_config": {}}, {}, "x")
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size) == (8, 4, 256, 262208)
    assert (config.context_length, config.tie_word_embeddings, config.eos_ids) == (131072, True, (1, 106))
    assert config.full_layers == (5, 11, 17, 23, 29) and config.sliding_window == 1024
    assert config.rope == RopeConfig("linear", 1e6, 8.0) and config.window_rope == RopeConfig("default", 1e4)
    assert config.embedding_multiplier == float(np.float32(2560**0.5)) and config.attention_scale is None
    assert config.model_type == "gemma3" and config.norms == "around" and config.activation == "gelu_tanh"


def test_token_ids_come_from_the_generation_config_first() -> None:
    assert parse_config(TINY, {"eos_token_id": [7, 8]}, "x").eos_ids == (7, 8)
    assert parse_config(TINY, {}, "x").eos_ids == (2,)
    assert parse_config({**TINY, "bos_token_id": None}, {}, "x").bos_id is None


def test_configuration_survives_a_mapping() -> None:
    config = parse_config({**TINY, "model_type": "mistral", "sliding_window": 9}, {}, "x")
    assert config.window(0) == 9
    assert ModelConfig.from_mapping(config.to_mapping()) == config
    for change in ({"hidden_size": 1.5}, {"other": 1}, {"rope": 3}, {"eos_ids": ["x"]}):
        with pytest.raises(ValueError):
            ModelConfig.from_mapping({**config.to_mapping(), **change})


def test_tied_weights_under_either_name(tmp_path: Path) -> None:
    tied = {"tie_word_embeddings": True}
    as_embedding = open_checkpoint(write_checkpoint(tmp_path / "embedding", tied))
    folder = write_checkpoint(tmp_path / "head", tied)
    tensors = random_tensors({**TINY, **tied})
    tensors[HEAD] = tensors.pop(EMBEDDING)
    save_file(tensors, folder / "model.safetensors")
    as_head = open_checkpoint(folder)
    assert as_head.embedding == as_head.head == HEAD
    np.testing.assert_array_equal(as_head.tensor(as_head.head), as_embedding.tensor(EMBEDDING))


def test_a_stored_head_that_differs_is_the_head(tmp_path: Path) -> None:
    """`tie_word_embeddings` and the weights state one fact; transformers believes the weights."""
    import torch
    from transformers import AutoModelForCausalLM

    tied = {"tie_word_embeddings": True}
    folder = write_checkpoint(tmp_path, tied)
    tensors = random_tensors({**TINY, **tied})
    for head, is_tied in ((tensors[EMBEDDING].copy(), True), (tensors[EMBEDDING][::-1].copy(), False)):
        save_file({**tensors, HEAD: head}, folder / "model.safetensors", metadata={"format": "pt"})
        checkpoint = open_checkpoint(folder)
        assert checkpoint.config.tie_word_embeddings is is_tied
        assert (checkpoint.embedding, checkpoint.head) == (EMBEDDING, EMBEDDING if is_tied else HEAD)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).get_output_embeddings().weight
        np.testing.assert_array_equal(checkpoint.tensor(checkpoint.head), theirs.detach().numpy())
    last = tensors[EMBEDDING].copy()
    last[-1, -1] += 1
    save_file({**tensors, HEAD: last}, folder / "model.safetensors")
    assert open_checkpoint(folder).head == HEAD, "every row is compared"


def test_shards_hold_what_the_index_says_and_no_more(tmp_path: Path) -> None:
    """A head that only its file knows of would be left out in silence."""
    tied = {"tie_word_embeddings": True}
    folder = write_checkpoint(tmp_path, tied)
    tensors = random_tensors({**TINY, **tied})
    (folder / "model.safetensors").unlink()
    names = ["one.safetensors", "two.safetensors"]
    save_file({**tensors, HEAD: tensors[EMBEDDING][::-1].copy()}, folder / names[0])
    save_file({EMBEDDING: tensors[EMBEDDING]}, folder / names[1])
    index = {"weight_map": dict.fromkeys(tensors, names[0])}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptModelError, match=rf"one.safetensors holds the tensor {HEAD}, which .* does not name"):
        open_checkpoint(folder)
    index["weight_map"].update({HEAD: names[0], EMBEDDING: names[1]})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptModelError, match=rf"one.safetensors holds the tensor {EMBEDDING}, which"):
        open_checkpoint(folder)


def test_missing_unknown_and_misshapen_tensors(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    name = "model.layers.1.mlp.down_proj.weight"
    whole = random_tensors(TINY)
    missing = {key: value for key, value in whole.items() if key != name}
    save_file(missing, folder / "model.safetensors")
    with pytest.raises(CorruptModelError, match=f"lacks the tensor {name}"):
        open_checkpoint(folder)
    save_file({**whole, name: whole[name].T.copy()}, folder / "model.safetensors")
    with pytest.raises(CorruptModelError, match="has the shape"):
        open_checkpoint(folder)
    save_file({**whole, "model.layers.0.adapter.weight": whole[name]}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"adapter\.weight"):
        open_checkpoint(folder)
    save_file({**whole, name: whole[name].astype(np.int32)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="I32"):
        open_checkpoint(folder).tensor(name)


def test_index_may_only_name_files_of_its_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "missing.safetensors", "x.bin"):
        index = {"weight_map": {tensor: name for tensor in random_tensors(TINY)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match=r"not one of this folder|is missing"):
            open_checkpoint(folder)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no model at"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnsupportedModelError, match=r"name one, such as .*model\.gguf"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(ModelNotFoundError, match="neither"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(UnsupportedModelError, match="pickled"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "header", "length", "empty"])
def test_damaged_files_are_one_clear_error(damage: str, tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(
        {
            "cut": content[:-1],
            "header": content[:8] + b"x" + content[9:],
            "length": struct.pack("<Q", 1 << 62) + content[8:],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(CorruptModelError, match="not a valid safetensors file"):
        open_checkpoint(tmp_path)


def test_config_that_is_not_json(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b"\xff"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CorruptModelError, match=r"config\.json"):
            open_checkpoint(tmp_path)
