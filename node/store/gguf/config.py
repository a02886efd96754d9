"""Turns the metadata of a GGUF file into a Hugging Face `config.json`, which `hf.config` reads and checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.errors import UnsupportedModelError
from node.model.config import ModelConfig
from node.store.gguf.family import MODEL_TYPES, ROTATED_IN_PART, special_keys
from node.store.gguf.header import TensorPlace
from node.store.gguf.rope import rope_scaling
from node.store.gguf.values import Values
from node.store.hf.config import parse_config
from protocol.linear.field import Floats


def read_gguf_config(
    metadata: Mapping[str, Any], tensors: Mapping[str, TensorPlace], factors: Mapping[str, Floats], where: str
) -> ModelConfig:
    """The architecture.

    Args:
        factors: the tensors with the divisors of rotary frequencies, f32[rotated / 2], by name.

    Raises:
        UnsupportedModelError: the architecture is not supported.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise UnsupportedModelError(
            f"model {where} is not supported: its architecture is {architecture!r}; use one of {known}"
        )
    of = Values(metadata, architecture, where)
    if of.get("expert_count"):
        raise UnsupportedModelError(
            f"model {where} is not supported: it is a mixture of experts, whose choice of experts would give the "
            "prompt away; use a dense one"
        )
    hidden_size, num_heads = of.integer("embedding_length"), of.integer("attention.head_count")
    head_dim = of.get("attention.key_length", hidden_size // max(1, num_heads))
    if of.get("attention.value_length", head_dim) != head_dim:
        raise of.refuse("its keys and values are of different sizes")
    if architecture not in ROTATED_IN_PART and of.get("rope.dimension_count", head_dim) != head_dim:
        raise of.refuse("only a part of each head is rotated, which this architecture is not known to have")
    embedding = tensors.get("token_embd.weight")
    raw = {
        "model_type": MODEL_TYPES[architecture],
        "hidden_size": hidden_size,
        "intermediate_size": of.get("feed_forward_length"),
        "num_hidden_layers": of.get("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": of.get("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": of.get("context_length"),
        "rms_norm_eps": of.get("attention.layer_norm_rms_epsilon"),
        "vocab_size": 0 if embedding is None else embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "rope_theta": of.get("rope.freq_base", 10000.0),
        "rope_scaling": rope_scaling(of, factors, head_dim),
        "eos_token_id": _ids(metadata, "eos_token_id", "eot_token_id"),
        "bos_token_id": _ids(metadata, "bos_token_id"),
        **special_keys(of, hidden_size, num_heads, head_dim),
    }
    return parse_config(raw, {}, where)


def _ids(metadata: Mapping[str, Any], *keys: str) -> list[int]:
    found = [metadata.get(f"tokenizer.ggml.{key}") for key in keys]
    return list(dict.fromkeys(value for value in found if value is not None))
