"""GGUF files made of random checkpoints, written by the gguf package as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
PAIRED = ("llama", "smollm3", "granite")
"""Architectures whose converter reorders the rows of q and k."""
AFTER = ("gemma2", "gemma3", "olmo2")
"""Architectures with a norm after the attention."""
WORDS = ["<unk>", "<s>", "</s>", *map(chr, range(33, 102)), *(f"<0x{byte:02X}>" for byte in range(0xE2, 0xEA))]
Type = gguf.GGMLQuantizationType


def name_of(tensor: str, architecture: str) -> str:
    if not tensor.startswith("model.layers."):
        outer = {
            "model.embed_tokens.weight": "token_embd",
            "lm_head.weight": "output",
            "model.norm.weight": "output_norm",
        }
        return f"{outer[tensor]}.weight"
    _model, _layers, layer, rest = tensor.split(".", 3)
    prefix, _, kind = rest.rpartition(".")
    if prefix == "post_attention_layernorm" and architecture in AFTER:
        return f"blk.{layer}.post_attention_norm.{kind}"
    return f"blk.{layer}.{_NAMES[prefix]}.{kind}"


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k of a Llama model in ggml's order."""
    by_head = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return by_head.swapaxes(1, 2).reshape(weights.shape)


def special_values(raw: dict[str, Any], architecture: str) -> dict[str, Any]:
    """What the converter writes for one architecture alone (llama.cpp, conversion/)."""
    if architecture in ("gemma2", "gemma3"):
        softcaps = {"attn": 50.0, "final": 30.0} if architecture == "gemma2" else {}
        softcaps |= {key: raw[f"{key}_logit_softcapping"] for key in softcaps if f"{key}_logit_softcapping" in raw}
        capped = {f"{key}_logit_softcapping": value for key, value in softcaps.items()}
        return {
            "attention.value_length": raw["head_dim"],
            "attention.sliding_window": raw["sliding_window"],
            **capped,
        }
    if architecture == "phi3":
        head_dim = raw["hidden_size"] // raw["num_attention_heads"]
        return {
            "rope.dimension_count": int(raw.get("partial_rotary_factor", 1.0) * head_dim),
            "attention.sliding_window": raw.get("sliding_window") or 0,
            "rope.scaling.original_context_length": raw.get("original_max_position_embeddings", 4096),
        }
    if architecture == "granite":
        return {
            "attention.scale": raw["attention_multiplier"],
            "embedding_scale": raw["embedding_multiplier"],
            "residual_scale": raw["residual_multiplier"],
            "logit_scale": raw["logits_scaling"],
        }
    scaling = raw.get("rope_scaling") or {}
    if scaling.get("rope_type") == "yarn":
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": scaling["factor"],
            "rope.scaling.original_context_length": scaling["original_max_position_embeddings"],
            **({"rope.scaling.yarn_beta_fast": scaling["beta_fast"]} if "beta_fast" in scaling else {}),
        }
    return {}


def longrope(raw: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of Phi-3's factors, by the length of the texts that they are for."""
    scaling = raw.get("rope_scaling") or {}
    found = {length: scaling.get(f"{length}_factor") for length in ("long", "short")}
    return {length: np.array(factors, np.float32) for length, factors in found.items() if factors}


def write_gguf(folder: Path, path: Path, kind: Type = Type.F32, **changes: Any) -> Path:
    """The checkpoint of a folder as a GGUF file.

    Args:
        kind: type of the matrices; vectors stay F32.
        changes: metadata by key, `None` to leave one out.
    """
    raw = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURES.get(raw["model_type"], raw["model_type"])
    heads, groups = raw["num_attention_heads"], raw["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    values: dict[str, Any] = {
        "context_length": raw["max_position_embeddings"],
        "embedding_length": raw["hidden_size"],
        "block_count": raw["num_hidden_layers"],
        "feed_forward_length": raw["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": groups,
        "attention.key_length": raw.get("head_dim", raw["hidden_size"] // heads),
        "attention.layer_norm_rms_epsilon": float(raw["rms_norm_eps"]),
        "rope.freq_base": float(raw.get("rope_theta", 10000.0)),
    }
    values |= special_values(raw, architecture)
    for key, value in values.items():
        adders: dict[type, Any] = {float: writer.add_float32, int: writer.add_uint32, str: writer.add_string}
        add = adders[type(value)]
        add(f"{architecture}.{key}", value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([-float(index) for index in range(len(WORDS))])
    writer.add_token_types([2, 3, 3, *[1] * 69, *[6] * 8])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for key, value in changes.items():
        writer.add_key_value(key, *value)
    for length, factors in longrope(raw).items():
        writer.add_tensor(f"rope_factors_{length}.weight", factors)
    for tensor, weights in load_file(folder / "model.safetensors").items():
        if architecture in PAIRED and ("q_proj" in tensor or "k_proj" in tensor):
            weights = permuted(weights, heads if "q_proj" in tensor else groups)
        if architecture in ("gemma2", "gemma3") and tensor.endswith("norm.weight"):
            weights = weights + np.float32(1)
        name = name_of(tensor, architecture)
        if weights.ndim == 1 or kind is Type.F32:
            writer.add_tensor(name, weights.astype(np.float32))
        else:
            writer.add_tensor(name, gguf.quantize(weights.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
